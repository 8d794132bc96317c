// Rows from generator.onnx in a C++ program that owns its noise, as simulations do:
//
//   g++ -std=c++17 generator.cpp -lonnxruntime -o generator
//   ./generator BUNDLE/generator.onnx N [SEED] > rows.csv
//
// Needs the headers and library of onnxruntime 1.14 or newer.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

int main(int count, char** arguments) {
  if (count < 3) return std::fputs("usage: generator MODEL N [SEED]\n", stderr), 2;
  const int64_t n = std::atoll(arguments[2]);
  std::mt19937_64 engine(count > 3 ? std::atoll(arguments[3]) : 0);
  std::normal_distribution<float> normal;

  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "scgan");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);  // small graphs: one session a thread, one thread a session
  Ort::Session session(env, arguments[1], options);
  const auto width = [&](size_t input) -> int64_t {
    const auto shape = session.GetInputTypeInfo(input).GetTensorTypeAndShapeInfo().GetShape();
    return shape.size() > 1 ? shape[1] : 0;
  };
  const size_t taken = session.GetInputCount();  // 2 where the bundle has no decoder noise z
  const int64_t h = width(0), m = width(1);  // u is [n], or [n, h] where there are discrete values
  const int64_t q = taken > 2 ? width(2) : 0;
  const std::array<const char*, 3> inputs{"u", "w", "z"};
  const std::array<const char*, 1> outputs{"x"};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  for (int64_t start = 0; start < n; start += 4096) {
    const int64_t rows = std::min<int64_t>(4096, n - start);
    std::vector<float> u(rows * std::max<int64_t>(h, 1)), w(rows * m), z(rows * q);
    for (float& value : u) value = float(engine() >> 40) / 16777216.0f;  // k / 2^24: never 1
    for (float& value : w) value = normal(engine);
    for (float& value : z) value = normal(engine);

    const auto tensor = [&](std::vector<float>& values, std::vector<int64_t> shape) {
      return Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), shape.data(),
                                             shape.size());
    };
    std::array<Ort::Value, 3> feeds{
        tensor(u, h ? std::vector<int64_t>{rows, h} : std::vector<int64_t>{rows}),
        tensor(w, {rows, m}), tensor(z, {rows, q})};
    const auto made = session.Run(Ort::RunOptions{nullptr}, inputs.data(), feeds.data(), taken,
                                  outputs.data(), outputs.size());
    const int64_t d = made[0].GetTensorTypeAndShapeInfo().GetShape()[1];
    const float* x = made[0].GetTensorData<float>();
    for (int64_t i = 0; i < rows * d; ++i) std::printf("%.9g%c", x[i], i % d == d - 1 ? '\n' : ',');
  }
}

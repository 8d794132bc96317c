// Rows from sampler.onnx, which holds its own noise: node sampler.mjs BUNDLE N [SEED] > rows.csv
import ort from 'onnxruntime-node'

const [bundle, n, seed = '0'] = process.argv.slice(2)
const session = await ort.InferenceSession.create(`${bundle}/sampler.onnx`)
const integers = values => new ort.Tensor('int64', BigInt64Array.from(values, BigInt), [values.length])
for (let start = 0; start < n; start += 4096) {
  const index = Array.from({ length: Math.min(4096, n - start) }, (_, i) => start + i)
  const { x } = await session.run({ seed: integers([seed]), index: integers(index) })
  for (let i = 0, d = x.dims[1]; i < x.data.length; i += d) console.log(x.data.slice(i, i + d).join())
}

"""Every example runs, on the bundle with every kind of column, and gives rows of that bundle."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny

import scgan_infer
from scgan_infer.judging.distances import Space, c2st
from scgan_infer.sampling.noise import block_noise
from scgan_infer.sampling.verify import differences
from scgan_train.exporting.triton import repository

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
SCGAN = Path(sysconfig.get_path("scripts")) / "scgan"
N, SEED = 5000, 3


@pytest.fixture(scope="module")
def model(mixed_bundle):
    return scgan_infer.load(mixed_bundle, device="cpu")


@pytest.fixture(scope="module", params=["noise", "no noise"])
def either(request, tmp_path_factory):
    """A bundle with decoder noise z, and one without."""
    if request.param == "noise":
        return request.getfixturevalue("mixed_bundle")
    return tiny.save(tmp_path_factory.mktemp("quiet") / "tiny", *tiny.without_noise())


def run(*command, **more):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, check=False, **more
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def rows(text):
    return np.loadtxt(text.splitlines(), np.float32, delimiter=",", ndmin=2)


def need(program, why=""):
    return shutil.which(program) or pytest.skip(f"{program} is not installed{why}")


def assert_same(x, model, n=N):
    expected = model.sample(n, seed=SEED)
    assert x.shape == expected.shape
    assert (differences(x, expected, model.columns, expected.std(axis=0)) <= 1e-5).all()


def assert_alike(x, model):
    """A classifier can't tell the rows from other samples, and can tell them from a rearrangement."""
    space = Space.fit(model.sample(N, seed=1), model.columns)
    other = space.standardise(model.sample(N, seed=2))
    assert x.shape == (N, len(model.columns))
    assert c2st(space.standardise(x), other) < 0.53
    rolled = np.column_stack([x[:, :1], np.roll(x[:, 1:], 1, axis=0)])
    assert c2st(space.standardise(rolled), other) > 0.7


def test_python_sampler(mixed_bundle, model):
    assert_same(
        rows(run(sys.executable, EXAMPLES / "python/sampler.py", mixed_bundle, N, SEED)), model
    )


def test_python_generator(either):
    made = rows(run(sys.executable, EXAMPLES / "python/generator.py", either, N, SEED))
    assert_alike(made, scgan_infer.load(either, device="cpu"))


@pytest.fixture
def node_modules():
    path = EXAMPLES / "node/node_modules"
    return (
        path if path.is_dir() else pytest.skip("onnxruntime for Node is not installed: make node")
    )


def test_node_sampler(mixed_bundle, model, node_modules):
    assert_same(
        rows(run(need("node"), EXAMPLES / "node/sampler.mjs", mixed_bundle, N, SEED)), model
    )


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_web_page(mixed_bundle, model, node_modules, tmp_path):
    browser = need("chromium")
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "bundle").symlink_to(mixed_bundle)
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = (
            f"http://127.0.0.1:{server.server_port}/examples/web/?bundle=/bundle&n={N}&seed={SEED}"
        )
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        page = run(browser, *flags, "--virtual-time-budget=120000", "--dump-dom", url)
        server.shutdown()
    assert_same(rows(re.search("<pre>(.+?)</pre>", page, re.DOTALL)[1]), model, n=10)


def test_cpp_generator(either, tmp_path):
    """With headers where the compiler finds them (CPLUS_INCLUDE_PATH) and the library of the Python package."""
    compiler = need("g++")
    source = EXAMPLES / "cpp/generator.cpp"
    if subprocess.run([compiler, "-M", source], capture_output=True, check=False).returncode:
        pytest.skip("onnxruntime_cxx_api.h is not installed")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    program = tmp_path / "generator"
    link = [f"-L{tmp_path}", "-lonnxruntime", f"-Wl,-rpath,{tmp_path}"]
    run(compiler, "-std=c++17", "-O1", source, *link, "-o", program)
    made = rows(run(program, either / "generator.onnx", N, SEED))
    assert_alike(made, scgan_infer.load(either, device="cpu"))


def test_one_input(either, tmp_path):
    model = scgan_infer.load(either, device="cpu")
    run(sys.executable, EXAMPLES / "cpp/one_input.py", either, tmp_path / "one.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "one.onnx", providers=["CPUExecutionProvider"]
    )
    (taken,) = session.get_inputs()
    sizes = model.manifest.sizes
    u, w, z = block_noise(SEED, 0, sizes["m"], sizes["q"], h=sizes["h"])
    noise = np.column_stack([u, w, z])
    assert taken.shape == ["n", noise.shape[1]]
    assert_same(session.run(None, {taken.name: noise})[0], model, n=len(noise))


def joined(folder, shards):
    return np.concatenate([np.load(folder / f"samples-{i}.npy") for i in range(1, shards + 1)])


def test_slurm_array(mixed_bundle, model, tmp_path):
    script = EXAMPLES / "batch/sample.slurm"
    array = re.search(r"^#SBATCH --array=1-(\d+)$", script.read_text(), re.MULTILINE)
    assert int(array[1]) == 100
    environment = {**os.environ, "PATH": f"{SCGAN.parent}:{os.environ['PATH']}"}
    for task in (1, 2, 3):
        slurm = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_COUNT": 3, "SLURM_CPUS_PER_TASK": 2}
        settings = {
            name: str(value) for name, value in {**slurm, "MODEL": mixed_bundle, "ROWS": N}.items()
        }
        run("sh", script, cwd=tmp_path, env={**environment, **settings})
    assert (joined(tmp_path, 3) == model.sample(N, seed=1)).all()


def test_htcondor_jobs(mixed_bundle, model, tmp_path):
    """Macros are replaced here as HTCondor's own library did (docs/runtimes.md)."""
    lines = [
        line for line in (EXAMPLES / "batch/sample.sub").read_text().splitlines() if line[0] != "#"
    ]
    assert lines[-1] == "queue $(shards)"
    written = dict(line.split(" = ", 1) for line in lines[:-1])
    assert (written["shard"], written["i"]) == ("$(Process) + 1", "$INT(shard)")
    site = {"scgan": str(SCGAN), "model": str(mixed_bundle), "rows": str(N), "shards": "3"}
    for process in range(3):
        settings = written | site | {"i": str(process + 1)}
        command = f"{settings['executable']} {settings['arguments']}"
        while (macro := re.search(r"\$\((\w+)\)", command)) is not None:
            command = command.replace(macro[0], settings[macro[1]])
        run(*command.split(), cwd=tmp_path)
    assert (joined(tmp_path, 3) == model.sample(N, seed=1)).all()


def test_triton_repository_is_that_of_the_bundle(tmp_path):
    made = repository(ROOT / "exported/eight_gaussians", tmp_path)
    contents = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (made, EXAMPLES / "triton")
    ]
    assert contents[0] == contents[1]

"""The sampling contract: sample i is a function of (bundle, seed, i), and of nothing else."""

import hashlib
import importlib.metadata
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fuzzing
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_bytes import model as onnx_model
from onnx_bytes import node

import scgan_infer
from scgan_infer import bundle
from scgan_infer.errors import ChecksumError, DataError, DeviceError, ModelError, UsageError
from scgan_infer.judging.evaluation import noise_picture
from scgan_infer.sampling.draw import END, within
from scgan_infer.sampling.engines import PIECE_BYTES, rows_of
from scgan_infer.sampling.model import MOST_REPEATS, Model, load, reopen
from scgan_infer.sampling.noise import BLOCK, TOGETHER, block_noise
from scgan_infer.sampling.verify import verify

onnxruntime = pytest.importorskip("onnxruntime")
EXPORTED = sorted(path.parent for path in Path(__file__).parents[3].glob("exported/*/bundle.json"))
ROWS = 5 * BLOCK


@pytest.fixture(scope="module", params=["tiny", *(path.name for path in EXPORTED[:1])])
def path(request, tiny_path):
    return tiny_path if request.param == "tiny" else EXPORTED[0]


@pytest.fixture(scope="module")
def models(path):
    return {threads: load(path, "cpu", threads) for threads in (1, 2, 3)}


@pytest.fixture(scope="module")
def truth(path):
    """Rows 0 .. ROWS - 1 of seed 3, by plain onnxruntime and nothing of the runtime."""
    sizes = bundle.load(path).manifest.sizes
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path / "generator.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = "uwz" if sizes["q"] else "uw"
    noise = [block_noise(3, block, sizes["m"], sizes["q"]) for block in range(ROWS // BLOCK)]
    return np.concatenate(
        [session.run(None, dict(zip(names, parts, strict=False)))[0] for parts in noise]
    )


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_rows_are_those_of_plain_onnxruntime(models, truth):
    spread = truth.std(axis=0)
    assert np.abs(models[1].sample(ROWS, seed=3) - truth).max() <= 1e-5 * spread.min()


@settings(max_examples=60)
@given(data=st.data(), start=st.integers(0, ROWS), threads=st.sampled_from([1, 2, 3]))
def test_any_range_with_any_threads_has_the_same_bits(models, data, start, threads):
    whole = models[1].sample(ROWS, seed=3)
    n = data.draw(st.integers(0, ROWS - start))
    assert np.array_equal(models[threads].sample(n, seed=3, start=start), whole[start : start + n])


@settings(max_examples=25)
@given(seed=st.integers(0, END - 1), start=st.integers(0, END - 6000), cut=st.integers(0, 6000))
def test_parts_make_the_whole_anywhere_in_the_stream(models, seed, start, cut):
    whole = models[2].sample(6000, seed, start)
    parts = models[1].sample(cut, seed, start), models[1].sample(6000 - cut, seed, start + cut)
    assert np.array_equal(np.concatenate(parts), whole)


@settings(max_examples=10)
@given(
    calls=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 9000),
            st.integers(0, 5000),
            st.sampled_from([None, 0]),
        ),
        max_size=6,
    )
)
def test_calls_do_not_remember_each_other(path, models, calls):
    fresh = load(path, "cpu", 1)
    for seed, start, n, cluster in calls:
        again = models[2].sample(n, seed, start, cluster=cluster)
        models[2].encode(models[2].sample(3, seed=9))
        assert np.array_equal(again, fresh.sample(n, seed, start, cluster=cluster))
    assert np.array_equal(models[2].sample(5), load(path, "cpu", 1).sample(5))


def test_one_model_serves_many_threads_at_once(models):
    spans = [(start, 3000) for start in range(0, ROWS - 3000, 1111)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda span: models[1].sample(span[1], seed=3, start=span[0]), spans))
    whole = models[1].sample(ROWS, seed=3)
    assert all(
        np.array_equal(rows, whole[a : a + n]) for (a, n), rows in zip(spans, found, strict=True)
    )


def test_streams_are_the_same_rows_in_order(models):
    n, start = 600_000, 1234
    pieces = list(models[2].blocks(n, seed=5, start=start, temperature=0.5))
    assert len(pieces) > 1
    assert sum(map(len, pieces)) == n
    whole = np.concatenate(pieces)
    for at in (0, 300_000, n - 10_000):
        wanted = models[1].sample(10_000, seed=5, start=start + at, temperature=0.5)
        assert np.array_equal(whole[at : at + 10_000], wanted)
    assert list(models[1].blocks(0)) == []


def test_a_stream_left_early_stops_its_threads(models):
    stream = models[2].blocks(10**12)
    assert len(next(stream)) > 0
    stream.close()


def _forked(model, pipe):
    pipe.send(digest(model.sample(9000, seed=3, start=77)))
    pipe.close()


def test_a_fork_gives_the_same_bits(models):
    """A model that has sampled is used on both sides of a fork."""
    wanted = digest(models[1].sample(9000, seed=3, start=77))
    context = multiprocessing.get_context("fork")
    for threads in (1, 2):
        ours, theirs = context.Pipe()
        process = context.Process(target=_forked, args=(models[threads], theirs))
        process.start()
        assert ours.poll(30)
        assert ours.recv() == wanted
        process.join(30)
        assert process.exitcode == 0
    assert digest(models[2].sample(9000, seed=3, start=77)) == wanted


def test_a_new_process_gives_the_same_bits(path, models):
    code = (
        "import sys, hashlib, scgan_infer\n"
        "rows = scgan_infer.load(sys.argv[1], 'cpu').sample(9000, seed=3, start=77)\n"
        "print(hashlib.sha256(rows.tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(models[1].sample(9000, seed=3, start=77))
    assert done.stderr == ""


def test_a_spawned_worker_gets_the_model_by_path_and_hash(models):
    wanted = models[1].sample(5000, seed=3)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert np.array_equal(pool.apply(models[2].sample, (5000, 3)), wanted)
        pool.close()
        pool.join()


def test_a_model_is_reopened_only_where_the_same_bundle_lies(tiny_bundle):
    model = load(tiny_bundle, "cpu", 1)
    sent = pickle.dumps(model)
    assert len(sent) < 1000
    assert isinstance(pickle.loads(sent), Model)
    reopen.cache_clear()
    tiny.save(tiny_bundle, replace(tiny.MANIFEST, name="other"), tiny.GRAPHS)
    with pytest.raises(ChecksumError, match="not the bundle"):
        pickle.loads(sent)


def test_clusters_are_drawn_by_their_weights_and_without_rejection(tiny_path):
    model = load(tiny_path, "cpu", 1)
    session = onnxruntime.InferenceSession(
        tiny.GRAPHS["mappers.onnx"], providers=["CPUExecutionProvider"]
    )

    def clusters(u):
        return session.run(["choice"], {"u": u, "w": np.zeros((len(u), 3), np.float32)})[0]

    edges = np.array([0, *tiny.THRESHOLDS])
    for i in (0, 1, 3):
        intervals = edges[[[i, i + 1]]]
        ends = np.array([0, 1, 2**23, 2**24 - 1], np.float64) / 2**24
        u = within(np.concatenate([ends.astype(np.float32), block_noise(0, 0, 0, 0)[0]]), intervals)
        assert (clusters(u) == i).all()
        assert u[0] == intervals[0, 0] / 2**24
        assert u[3] == (intervals[0, 1] - 1) / 2**24
    counts = np.bincount(
        clusters(np.concatenate([block_noise(0, b, 0, 0)[0] for b in range(25)])), minlength=4
    )
    wanted = counts.sum() * np.diff(edges) / 2**24
    assert counts[2] == 0
    assert np.abs(counts - wanted).max() < 5 * np.sqrt(wanted.max())
    # rows of all clusters together are the plain rows; of one, those of its own place
    assert np.array_equal(model.sample(9000, cluster=[0, 1, 2, 3]), model.sample(9000))
    assert np.array_equal(
        model.sample(99, cluster=(1,), start=50), model.sample(149, cluster=1)[50:]
    )
    means = [model.sample(20_000, cluster=i).mean(axis=0) for i in (0, 1, 3)]
    encoded = model.encode(np.array(means))[1]
    assert list(encoded) == [0, 1, 3]


@settings(max_examples=200)
@given(
    ks=st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=20),
    ends=st.lists(st.integers(0, 2**24), min_size=2, max_size=8, unique=True),
)
def test_u_is_mapped_into_intervals_exactly(ks, ends):
    """Against whole-number arithmetic of unbounded size, point by point."""
    ends = sorted(ends)
    intervals = list(zip(ends[::2], ends[1::2], strict=False))
    points = [range(low, high) for low, high in intervals]
    total = sum(map(len, points))
    found = (
        within((np.array(ks) / 2**24).astype(np.float32), np.array(intervals)).astype(np.float64)
        * 2**24
    )
    for k, point in zip(ks, found, strict=True):
        place = k * total // 2**24
        for interval in points:
            if place < len(interval):
                assert point == interval[place]
                break
            place -= len(interval)


def test_temperature_scales_the_noise(models):
    model = models[1]
    assert np.array_equal(model.sample(100, temperature=1.0), model.sample(100))
    cold, mild, warm = (
        model.sample(20_000, cluster=0, temperature=t).astype(float).std(axis=0).max()
        for t in (0.0, 0.5, 1.0)
    )
    assert cold < mild < warm


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": -1}, "n must be 0 or more, not -1"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**63}, "seed must be"),
        ({"start": -1}, "start must be"),
        ({"start": 2**63 - 9}, "start must be"),
        ({"cluster": 4}, r"cluster must be in 0 \.\. 3, not 4"),
        ({"cluster": -1}, "cluster must be"),
        ({"cluster": []}, "cluster must be"),
        ({"cluster": [0, 9]}, "cluster must be"),
        ({"cluster": 2}, "weight 0"),
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": float("inf")}, "temperature must be"),
        ({"temperature": 10**400}, "temperature must be"),
        ({"temperature": "1"}, "temperature must be"),
        ({"n": 2.5}, r"n must be a whole number, not 2\.5"),
        ({"n": True}, "n must be a whole number, not True"),
        ({"n": np.uint64(2**64 - 1)}, "start must be"),
        ({"seed": "1"}, "seed must be a whole number, not '1'"),
        ({"start": np.float32(1)}, "start must be a whole number"),
        ({"cluster": True}, "cluster must be a whole number, not True"),
        ({"cluster": [True]}, "cluster must be a whole number, not True"),
        ({"cluster": [0.5]}, r"cluster must be a whole number, not 0\.5"),
        ({"cluster": np.array([0.0])}, "cluster must be a whole number"),
        ({"cluster": "01"}, "cluster must be a whole number, not '0'"),
        ({"cluster": [np.int8(-1)]}, "cluster must be in"),
        ({"where": "x=1"}, "where must map"),
    ],
)
def test_arguments_out_of_range_are_usage_errors(tiny_path, arguments, words):
    model = load(tiny_path)
    for call in (model.sample, model.blocks):
        with pytest.raises(UsageError, match=words):
            call(**{"n": 10, **arguments})


def test_more_rows_than_memory_has_are_a_usage_error(tiny_path):
    for n in (2**62, 2**55):
        with pytest.raises(UsageError, match="don't fit into memory"):
            load(tiny_path).sample(n)


WHOLE = [np.dtype(code).type for code in "bBhHiIqQ"]


@st.composite
def whole_numbers(draw, low, high):
    """A number in low .. high as Python's or as one of numpy's, of any width that has a place for it."""
    number = draw(st.integers(low, high) | st.sampled_from([low, high, min(high, 127)]))
    wide = [kind for kind in WHOLE if np.iinfo(kind).max >= number]
    made = [number, *(kind(number) for kind in wide), *(np.array(number, kind) for kind in wide)]
    return draw(st.sampled_from(made))


@given(
    n=whole_numbers(0, 300),
    seed=whole_numbers(0, END - 1),
    start=whole_numbers(0, 255)
    | whole_numbers(2**31 - 300, 2**31 + 9)
    | whole_numbers(0, END - 300),
    cluster=st.none() | whole_numbers(0, 1) | st.lists(whole_numbers(0, 1), min_size=1, max_size=3),
    temperature=st.sampled_from(
        [1, 1.0, np.float32(0.5), np.float64(0.5), np.float16(2), np.int8(2)]
    ),
    packed=st.booleans(),
)
def test_whole_numbers_of_any_width_name_the_same_rows(
    models, n, seed, start, cluster, temperature, packed
):
    """Numpy's integers wrap around in sums; rows are those of Python's."""
    model, several = models[1], isinstance(cluster, list)
    plain = [int(i) for i in cluster] if several else cluster if cluster is None else int(cluster)
    if several and packed:
        cluster = np.array(plain, np.uint8)
    wanted = model.sample(
        int(n), int(seed), int(start), cluster=plain, temperature=float(temperature)
    )
    asked = {"cluster": cluster, "temperature": temperature}
    assert np.array_equal(model.sample(n, seed, start, **asked), wanted)
    pieces = list(model.blocks(n, seed, start, **asked))
    assert sum(map(len, pieces)) == len(wanted)
    assert np.array_equal(np.concatenate([wanted[:0], *pieces]), wanted)
    if len(wanted):
        fixed = model.manifest.sizes["q"] and {"seed": seed, "start": start}
        known = model.manifest.sizes["q"] and {"seed": int(seed), "start": int(start)}
        back = model.reconstruct(wanted[:9], **(fixed or {}))
        assert np.array_equal(back, model.reconstruct(wanted[:9], **(known or {})))


def test_the_last_sample_of_the_stream_is_there(models):
    assert models[1].sample(3, seed=END - 1, start=END - 3).shape == (
        3,
        models[1].manifest.sizes["d"],
    )


def test_encode_and_reconstruct_are_the_graphs(path, models):
    rows = models[1].sample(BLOCK + 500, seed=8)
    sessions = {
        name: onnxruntime.InferenceSession(path / name, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    }
    latent, cluster = sessions["encoder.onnx"].run(None, {"x": rows})
    q = models[1].manifest.sizes["q"]
    z = {"z": np.zeros((len(rows), q), np.float32)} if q else {}
    back = sessions["decoder.onnx"].run(None, {"latent": latent, **z})[0]
    for model in models.values():
        found, chosen = model.encode(rows)
        assert np.abs(found - latent).max() <= 1e-5 * latent.std()
        assert (chosen == cluster).mean() > 0.999
        assert np.abs(model.reconstruct(rows) - back).max() <= 1e-5 * back.std()
    assert models[1].reconstruct(rows[:0]).shape == (0, rows.shape[1])


def test_a_row_is_encoded_the_same_wherever_it_stands(models):
    rows = models[1].sample(9000, seed=8)
    latent, cluster = models[1].encode(rows)
    for low, high in ((0, 1), (17, 4100), (4095, 9000)):
        again = models[2].encode(rows[low:high])
        assert np.array_equal(again[0], latent[low:high])
        assert np.array_equal(again[1], cluster[low:high])
        assert np.array_equal(
            models[2].reconstruct(rows[low:high]), models[1].reconstruct(rows)[low:high]
        )


def test_stochastic_reconstruction_takes_its_noise_by_index(tiny_path):
    model, other = load(tiny_path, "cpu", 1), load(tiny_path, "cpu", 2)
    rows = model.sample(6000, seed=8)
    noisy = model.reconstruct(rows, seed=4)
    assert np.array_equal(model.reconstruct(rows, seed=4), noisy)
    assert np.array_equal(other.reconstruct(rows[5000:], seed=4, start=5000), noisy[5000:])


def test_stochastic_reconstruction_depends_on_its_seed(tiny_path):
    model = load(tiny_path, "cpu", 1)
    rows = model.sample(100)
    versions = [
        model.reconstruct(rows),
        model.reconstruct(rows, seed=4),
        model.reconstruct(rows, seed=5),
    ]
    assert len(np.unique(versions, axis=0)) == 3


def test_a_bundle_without_decoder_noise_has_no_z(tmp_path):
    model = load(tiny.save(tmp_path / "quiet", *tiny.without_noise()), "cpu", 1)
    rows = model.sample(100)
    assert np.isfinite(model.reconstruct(rows)).all()
    with pytest.raises(UsageError, match="no decoder noise") as error:
        model.reconstruct(rows, seed=4)
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="no decoder noise"):
        noise_picture(model)
    assert verify(model.bundle.path).worst < 1e-4


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((3, 5)), "rows: has 5 columns without names where 2 are needed: x, y"),
        (np.zeros(2), "has 1 columns without names where 2 are needed"),
        ([["1", "a"]], "rows: column 'y', row 1: 'a' is text where a number belongs"),
        (np.zeros((3, 2), complex), "complex128 is neither number nor text"),
        (np.array([[0, 1], [2, np.nan]]), "column 'y', row 2: nan is missing"),
        (np.array([[0, 1], [np.inf, 0], [np.nan, 0]]), "column 'x', row 2: inf is infinite"),
        (np.array([[1e39, 1]]), "column 'x', row 1: 1e[+]39 is beyond float32"),
    ],
)
def test_rows_that_do_not_fit_are_data_errors(tiny_path, rows, words):
    model = load(tiny_path)
    for call in (model.encode, model.reconstruct):
        with pytest.raises(DataError, match=words):
            call(rows)


def test_cuda_is_never_the_cpu(tiny_path):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(DeviceError, match="device cpu") as error:
        load(tiny_path, "cuda")
    assert error.value.exit_code == 4
    assert load(tiny_path, "auto").device == "cpu"
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        load(tiny_path, "tpu")
    with pytest.raises(UsageError, match="at least 1"):
        load(tiny_path, threads=0)
    with pytest.raises(UsageError, match="whole number"):
        load(tiny_path, threads=1.5)
    assert load(tiny_path, threads=np.uint8(255)).threads + 2 == 257


def _run(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


def test_the_package_imports_nothing_heavy():
    done = _run("import sys, scgan_infer\nscgan_infer.load\nprint(*sys.modules)")
    assert done.returncode == 0
    assert {"numpy", "onnxruntime"}.isdisjoint(done.stdout.split())


def test_sampling_imports_numpy_and_onnxruntime_only(tiny_path):
    code = "import sys, scgan_infer\nscgan_infer.load(sys.argv[1], 'cpu').sample(1)\nprint(*sys.modules)"
    loaded = {name.partition(".")[0] for name in _run(code, tiny_path).stdout.split()}
    assert "onnxruntime" in loaded
    assert loaded.isdisjoint(
        {"torch", "onnx", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "dask", "typer"}
    )


def test_a_missing_onnxruntime_is_named_with_its_install_command(tiny_path):
    code = (
        "import sys\nsys.modules['onnxruntime'] = None\n"
        "import scgan_infer\nfrom scgan_infer.errors import UsageError\n"
        "try:\n    scgan_infer.load(sys.argv[1], 'cpu').sample(1)\n"
        "except UsageError as error:\n    print(error)"
    )
    assert re.search(r"pip install .*\[cpu\]", _run(code, tiny_path).stdout)


def test_the_version_is_the_installed_one():
    try:
        assert scgan_infer.__version__ == importlib.metadata.version("scgan")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from a checkout that is not installed")
    with pytest.raises(AttributeError):
        _ = scgan_infer.nonsense


def _hostile(folder, **changes):
    """Save a bundle whose generator keeps the rules and means harm."""
    graph = onnx_model(tiny.body("generator.onnx", **changes))
    return tiny.save(folder, tiny.MANIFEST, {**tiny.GRAPHS, "generator.onnx": graph})


GENERATOR = [*tiny.MAP, *tiny.DECODE[:-1], node("Add", "latent h6", "y")]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Log", "y", "x")], "not finite"),
        ([node("Concat", "y y", "x", axis=0)], "another shape"),
        ([node("Gather", "y first", "t", axis=0), node("Identity", "t", "x")], "another shape"),
        ([node("Gather", "y choice", "x", axis=1)], "failed"),
        ([node("Tanh", "y y", "x")], "can't be used"),
    ],
)
def test_a_generator_that_misbehaves_is_a_model_error(tmp_path, nodes, words):
    used = "bounds last centers spread a1 a2 b a3 first"
    weights = [item for item in tiny.WEIGHTS if item[0] in used.split()]
    path = _hostile(tmp_path / "b", nodes=[*GENERATOR, *nodes], weights=weights)
    with pytest.raises(ModelError, match=words) as error:
        load(path, "cpu").sample(10)
    assert "\n" not in str(error.value)


def test_a_lazy_model_checks_each_graph_before_it_runs(tmp_path, tiny_path):
    folder = shutil.copytree(tiny_path, tmp_path / "b")
    nodes = [*tiny.DECODE, node("RandomNormalLike", "z", "s")]
    (folder / "decoder.onnx").write_bytes(onnx_model(tiny.body("decoder.onnx", nodes=nodes)))
    fuzzing.rehash(folder)
    with pytest.raises(ModelError, match="random operator"):
        load(folder, "cpu")
    with pytest.raises(ModelError, match="random operator"):
        verify(folder)
    lazy = load(folder, "cpu", lazy=True)
    assert np.array_equal(lazy.sample(10), load(tiny_path, "cpu").sample(10))
    for _ in range(2):
        with pytest.raises(ModelError, match="random operator"):
            lazy.reconstruct(lazy.sample(10))


GROWTH = {
    "at once": [node("Expand", "h3 much", "h9")],
    "by doubling": [
        node("Concat", f"{i or 'a'}c {i or 'a'}c", f"{i + 1}c", axis=0) for i in range(13)
    ],
    "by doubling constants": [
        node("Concat", f"{i or 'a'}k {i or 'a'}k", f"{i + 1}k", axis=0) for i in range(25)
    ],
}


@pytest.mark.parametrize("way", GROWTH)
def test_a_generator_that_grows_beyond_the_arena_is_stopped(tmp_path, way):
    first = {"by doubling": node("Identity", "h5", "ac")}.get(way, node("Identity", "b", "ak"))
    last = {"at once": "h9", "by doubling": "13c", "by doubling constants": "25k"}[way]
    nodes = [
        *GENERATOR,
        first,
        *GROWTH[way],
        node("ReduceSum", last, "s", keepdims=0),
        node("Add", "y s", "x"),
    ]
    weights = [*tiny.WEIGHTS, ("much", np.array([2**13, 4096, 32], np.int64))]
    weights = [item for item in weights if item[0] not in ("twice", "squares", "first")]
    path = _hostile(tmp_path / "b", nodes=nodes, weights=weights)
    code = (
        "import sys, resource\nfrom scgan_infer import load\nfrom scgan_infer.errors import ModelError\n"
        "from scgan_infer.sampling.sessions import memory_limit\n"
        "try:\n    load(sys.argv[1], 'cpu', 1).sample(1)\nexcept ModelError as error:\n    print(error)\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < memory_limit() + 2**28"
    )
    done = _run(code, path)
    assert done.returncode == 0, done.stderr
    assert "generator.onnx failed" in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.mark.parametrize("path", EXPORTED, ids=lambda path: path.name)
def test_every_exported_bundle_samples(path):
    model = load(path)
    rows = model.sample(10_000, seed=1)
    assert rows.shape == (10_000, len(model.columns))
    assert np.isfinite(rows).all()
    assert np.abs(model.reconstruct(rows) - rows).mean() < 0.1 * rows.std()


def test_forking_while_threads_sample_is_survived(models):
    """The child neither hangs on a lock that a thread of its parent held nor gets other rows."""
    wanted = digest(models[1].sample(5000, seed=3))
    stream = models[2].blocks(10**9)
    next(stream)
    try:
        for _ in range(5):
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                os._exit(digest(models[1].sample(5000, seed=3)) != wanted)
            _, status = os.waitpid(pid, 0)
            assert status == 0
    finally:
        stream.close()


@pytest.mark.parametrize("d", range(1, 70))
def test_pieces_and_blocks_of_one_noise_cut_each_other_evenly(d):
    size, together = rows_of(PIECE_BYTES, d), TOGETHER * BLOCK
    assert size % BLOCK == 0
    assert size % together == 0 or together % size == 0
    assert size == BLOCK or size * 4 * d <= PIECE_BYTES
    assert 2 * size * 4 * d > PIECE_BYTES


def counted(path, *bounds):
    """Return a model that chooses by such bounds, and a list that grows by each run of one of its graphs."""
    model, runs = load(tiny.save(path, *tiny.chained(bounds)), "cpu"), []
    model.run = lambda *names, run=model.run, **inputs: runs.append(names) or run(*names, **inputs)
    return model, runs


def test_a_rare_value_is_given_up_once_that_is_certain(tmp_path):
    """A few rows of it may be found all the same; a block of them takes too long."""
    rare, runs = counted(tmp_path / "rare", 1 - 2**-16, 0.5)
    with pytest.raises(UsageError, match=r"came \d times in 26\d{4} draws, too rarely .1 in 10000"):
        rare.sample(BLOCK, where={"y": "b"})
    assert len(runs) <= MOST_REPEATS // BLOCK + 2
    never, runs = counted(tmp_path / "never", 1.0, 0.5)
    with pytest.raises(UsageError, match=r"never came in 262144 draws; ask for fewer values"):
        never.sample(1, where={"y": "b"})
    assert len(runs) == MOST_REPEATS // BLOCK


def test_few_rows_of_a_rare_value_are_looked_for_alone(tmp_path):
    """They are those that a whole block has at their places."""
    model, runs = counted(tmp_path / "seldom", 1 - 2**-8, 0.5)
    told = []
    model.searching = lambda *counts: told.append(counts)
    rows = model.sample(BLOCK + 100, seed=3, where={"y": "b"})
    assert (rows[:, 1] == 1).all()
    found, draws = sum(more for _, more in told), sum(looked for looked, _ in told)
    assert found == len(rows)
    assert 200 < draws / found < 400
    runs.clear()
    few = model.sample(20, 3, BLOCK - 10, where={"y": "b"})
    np.testing.assert_array_equal(few, rows[BLOCK - 10 : BLOCK + 10])
    assert len(runs) < 10


@pytest.mark.parametrize("number", [2, -1, 2**40])
def test_a_head_that_chooses_what_is_not_there_is_refused(tmp_path, number):
    head = [
        node("Cast", "u", "whole", to=7),
        node("Constant", "", "far", value_int=number),
        node("Add", "whole far", "choice"),
    ]
    model = load(tiny.save(tmp_path / "far", *tiny.chained((0.5, 0.5), head)), "cpu")
    with pytest.raises(ModelError, match="beyond those of the manifest"):
        model.sample(1, where={"y": "b"})


def test_wide_noise_is_made_a_block_at_a_time_by_few_threads(tiny_path):
    wide = bundle.load(tiny_path)
    wide.manifest.sizes.update(m=4096, q=4096)
    assert Model(wide, "cpu", 64).threads == 1
    wide.manifest.sizes.update(m=32, q=32)
    assert Model(wide, "cpu", 64).threads == 64

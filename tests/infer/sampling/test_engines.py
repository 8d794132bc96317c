"""Every engine gives the bytes that `Model` gives, in order, however its workers fare."""

import os
import signal
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from scgan_infer.errors import ChecksumError, UsageError
from scgan_infer.sampling.draw import Draw, cut
from scgan_infer.sampling.engines import ENGINES, Job, in_order
from scgan_infer.sampling.model import load

pytest.importorskip("onnxruntime")
TASK = 2**17


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr("scgan_infer.sampling.engines.TASK_ROWS", TASK)


@pytest.fixture(scope="module")
def model(tiny_path):
    return load(tiny_path, "cpu", 2)


def two_workers():
    """Return a context manager: two worker processes of one thread each."""
    return pytest.importorskip("distributed").LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    )


@pytest.fixture(scope="module")
def cluster():
    with two_workers() as found:
        yield found


@pytest.fixture(params=ENGINES)
def engine(request):
    """Each engine, with the address of its scheduler."""
    address = (
        request.getfixturevalue("cluster").scheduler_address if request.param == "dask" else None
    )
    return lambda job: ENGINES[request.param](Job(**{**vars(job), "scheduler": address}))


def test_sampling_gives_the_models_rows(engine, model):
    draw = Draw(3 * TASK + 5, seed=11, start=TASK - 700, cluster=(0, 3), temperature=0.8)
    parts = list(engine(Job(model, draw=draw)))
    assert len(parts) > 1
    found = np.concatenate(parts)
    wanted = model.sample(draw.n, 11, draw.start, cluster=(0, 3), temperature=0.8)
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("op", ["reconstruct", "encode"])
def test_files_give_the_models_answers(engine, model, op, tmp_path):
    rows = model.sample(100_000, seed=2)
    np.save(tmp_path / "rows.npy", rows)
    found = np.concatenate(list(engine(Job(model, op, source=tmp_path / "rows.npy"))))
    if op == "reconstruct":
        assert np.array_equal(found, model.reconstruct(rows))
    else:
        latent, cluster = model.encode(rows)
        assert np.array_equal(found[:, :-1], latent)
        assert np.array_equal(found[:, -1], cluster)


def test_reconstruction_noise_goes_by_the_row_in_the_file(engine, model, tmp_path):
    rows = model.sample(100_000, seed=2)
    np.save(tmp_path / "rows.npy", rows)
    job = Job(model, "reconstruct", Draw(seed=7, start=5), tmp_path / "rows.npy")
    assert np.array_equal(
        np.concatenate(list(engine(job))), model.reconstruct(rows, seed=7, start=5)
    )


def test_nothing_asked_is_nothing_given(engine, model):
    assert sum(map(len, engine(Job(model, draw=Draw(0))))) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"op": "train"}, "operation"),
        ({"draw": Draw(cluster=2)}, "weight 0"),
    ],
)
def test_a_job_that_cant_be_done_is_refused_when_it_is_made(model, fields, words):
    with pytest.raises(UsageError, match=words):
        Job(model, **fields)


@pytest.mark.parametrize(
    "op",
    ["sample", *(pytest.param(op, marks=pytest.mark.slow) for op in ("reconstruct", "encode"))],
)
def test_a_worker_that_is_killed_changes_nothing(model, op, tmp_path, monkeypatch):
    """Kill a worker's process while it works; its pieces are computed again, to the same bytes."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("scgan_infer.sampling.engines.TASK_BYTES", 2**20)
    monkeypatch.setattr("scgan_infer.sampling.engines.CHUNK_BYTES", 2**17)
    np.save(tmp_path / "rows.npy", model.sample(10 * TASK, seed=2))
    with two_workers() as cluster, distributed.Client(cluster, set_as_default=False) as client:
        address = cluster.scheduler_address
        draw = Draw(24 * TASK, seed=1) if op == "sample" else None
        job = Job(model, op, draw, tmp_path / "rows.npy", address)
        lost = min(client.run(os.getpid).values())
        stream = ENGINES["dask"](job)
        parts = [next(stream)]
        os.kill(lost, signal.SIGKILL)
        parts += stream
        assert lost not in client.run(os.getpid, on_error="ignore").values()
    assert len(parts) > 20
    found, wanted = (np.concatenate(some) for some in (parts, list(ENGINES["local"](job))))
    assert np.array_equal(found, wanted)


def test_a_cluster_of_ones_own_is_started_and_ended(model, tiny_path):
    pytest.importorskip("distributed")
    psutil = pytest.importorskip("psutil")
    before = psutil.Process().children(recursive=True)
    found = np.concatenate(list(ENGINES["dask"](Job(load(tiny_path, "cpu", 1), draw=Draw(9000)))))
    assert np.array_equal(found, model.sample(9000))
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_a_cluster_of_ones_own_takes_no_code_from_others(model, monkeypatch):
    """Without its certificate nobody is answered, be it by the scheduler or by a worker, and no page is served."""
    distributed = pytest.importorskip("distributed")
    clusters = []

    class Noted(distributed.LocalCluster):
        def __init__(self, **options):
            super().__init__(**options)
            clusters.append(self)

    monkeypatch.setattr(distributed, "LocalCluster", Noted)
    stream = ENGINES["dask"](Job(model, draw=Draw(20 * TASK)))
    next(stream)
    (cluster,) = clusters
    workers = [worker.worker_address for worker in cluster.workers.values()]
    for address in (cluster.scheduler_address, *workers):
        assert address.startswith("tls://127.0.0.1:")
        plain, strange = address.replace("tls:", "tcp:"), distributed.Security.temporary()
        for asked, security in ((plain, None), (address, strange)):
            with (
                pytest.raises(OSError),
                distributed.Client(
                    asked, security=security, timeout=1, set_as_default=False
                ) as client,
            ):
                client.submit(os.getpid).result(5)
    with pytest.raises(HTTPError, match="404"):
        urlopen(cluster.dashboard_link.replace("/status", "/info/main/workers.html"))
    stream.close()


def test_workers_refuse_another_bundle_than_the_one_meant(cluster, tiny_bundle):
    job = Job(load(tiny_bundle, "cpu", 1), draw=Draw(10), scheduler=cluster.scheduler_address)
    tiny.save(tiny_bundle, replace(tiny.MANIFEST, name="other"), tiny.GRAPHS)
    with pytest.raises(ChecksumError, match="not the bundle"):
        list(ENGINES["dask"](job))


def test_a_scheduler_that_does_not_answer_is_a_usage_error(model, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("scgan_infer.sampling.engines.CONNECT_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(UsageError, match="no Dask scheduler"):
            list(ENGINES["dask"](Job(model, draw=Draw(10), scheduler=address)))


def test_a_missing_dask_is_named_with_its_install_command(model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install .*dask"):
        list(ENGINES["dask"](Job(model, draw=Draw(10))))


@settings(max_examples=100)
@given(start=st.integers(0, 2**62), n=st.integers(0, 5000), size=st.integers(1, 900))
def test_pieces_tile_their_range_and_meet_at_multiples(start, n, size):
    found = list(cut(start, start + n, size))
    assert [low for low, _ in found[1:]] == [high for _, high in found[:-1]]
    assert sum(high - low for low, high in found) == n
    assert all(0 < high - low <= size for low, high in found)
    assert all(low % size == 0 for low, _ in found[1:])


@settings(max_examples=20)
@given(tasks=st.integers(0, 30), window=st.integers(1, 8), taken=st.integers(0, 30))
def test_results_come_in_order_and_no_more_than_a_window_is_ahead(tasks, window, taken):
    submitted = []
    with ThreadPoolExecutor(4) as pool:

        def submit(task):
            submitted.append(task)
            return pool.submit(lambda: task)

        stream = in_order(submit, range(tasks), window)
        for place, result in enumerate(stream):
            assert result == place
            assert len(submitted) <= place + window
            if place == taken:
                break
        stream.close()


def test_what_is_left_behind_is_cancelled():
    waiting = [Future() for _ in range(4)]
    waiting[0].set_result(0)
    stream = in_order(waiting.__getitem__, range(4), 3)
    assert next(stream) == 0
    stream.close()
    assert [future.cancelled() for future in waiting] == [False, True, True, False]

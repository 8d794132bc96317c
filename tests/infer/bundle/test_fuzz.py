"""2,000 damaged bundles and files of rows: each ends in rows, or in one line and an exit code of the table.

The cases run in processes of limited memory, each case in limited time: a process that dies, hangs, prints a
traceback or says more than a line fails the test. `fuzzing` makes the cases.
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import fuzzing
import pytest

SECONDS = 30
WORKERS = 2


def faults(make, numbers, model):
    """Return what went wrong in these cases, in a process that is replaced when it dies."""
    context, found, worker, ours = multiprocessing.get_context("spawn"), [], None, None
    for number in [*numbers, None]:
        if worker is None and number is not None:
            ours, theirs = context.Pipe()
            worker = context.Process(target=fuzzing.serve, args=(theirs, make, model))
            worker.start()
            theirs.close()
        if ours is None:
            break
        ours.send(number)
        if number is None:
            worker.join(SECONDS)
            break
        try:
            said = (
                ours.recv() if ours.poll(SECONDS) else f"{make.__name__} {number}: took {SECONDS} s"
            )
        except EOFError:
            worker.join()
            said = f"{make.__name__} {number}: the process died, exit code {worker.exitcode}"
        if said:
            found.append(said)
        if "process died" in said or "took" in said:
            worker.kill()
            worker.join()
            worker = ours = None
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("make", "count"), [(fuzzing.bundle_case, 1300), (fuzzing.file_case, 700)])
def test_whatever_is_damaged_is_said_in_one_line(make, count, tiny_path):
    pytest.importorskip("resource")
    with ThreadPoolExecutor(WORKERS) as pool:
        parts = [range(first, count, WORKERS) for first in range(WORKERS)]
        found = [
            item
            for part in pool.map(lambda part: faults(make, part, tiny_path), parts)
            for item in part
        ]
    assert found == []

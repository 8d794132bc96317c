"""Damaged bundles, files of rows and run folders: each ends in rows, or in one line and an exit code of the table.

The cases, which `fuzzing` makes, run in a process of limited memory: one that ends the process, hangs, takes much time
or memory, prints a traceback or says more than a line fails the test. `make mutations` runs 10,000;
`SCGAN_CASES=471:472` runs case 471 alone.
"""

import multiprocessing
import os
import sys

import pytest

HANGS = 300  # seconds, on a busy machine
FIRST, LAST = map(int, os.environ.get("SCGAN_CASES", "0:1000").split(":"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
def test_whatever_is_damaged_is_said_in_one_line(tmp_path):
    import fuzzing

    context, found, worker = multiprocessing.get_context("spawn"), [], None
    for number in range(FIRST, LAST):
        if worker is None:
            ours, theirs = context.Pipe()
            worker = context.Process(target=fuzzing.serve, args=(theirs, tmp_path))
            worker.start()
            theirs.close()
        ours.send(number)
        try:
            said = ours.recv() if ours.poll(HANGS) else f"case {number}: hangs"
        except EOFError:
            worker.join()
            said = f"case {number}: the process died, exit code {worker.exitcode}"
        if said:
            found.append(said)
            worker.kill()
            worker.join()
            worker = None
    if worker is not None:
        ours.send(None)
        worker.join()
    assert not found, "\n".join(found)

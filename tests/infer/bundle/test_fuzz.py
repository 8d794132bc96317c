"""Damaged bundles, files of rows and run folders: each ends in rows, or in one line and an exit code of the table.

The cases, which `fuzzing` makes, run in a process of limited memory: one that ends the process, hangs, computes for
more than 20 s, takes much memory, prints a traceback or says more than a line fails the test. `make mutations` runs
10,000; `SCGAN_CASES=471:472` runs case 471 alone.
"""

import multiprocessing
import os
import sys

import pytest

HANGS = 120  # seconds, computing or not; a worker ends itself after 20 of computing
FIRST, LAST = map(int, os.environ.get("SCGAN_CASES", "0:500").split(":"))


class Worker:
    """A process that tries cases, one after another, until one of them is too much for it."""

    def __init__(self, target, place):
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(theirs, place))
        self.process.start()
        theirs.close()

    def fault(self, number):
        """Return what is wrong with a case, or an empty text."""
        self.ours.send(number)
        try:
            return self.ours.recv() if self.ours.poll(HANGS) else f"case {number}: hangs"
        except EOFError:
            self.process.join(HANGS)
            return f"case {number}: the process died, exit code {self.process.exitcode}"

    def end(self):
        self.process.kill()
        self.process.join()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
def test_whatever_is_damaged_is_said_in_one_line(tmp_path):
    import fuzzing

    found, worker = [], Worker(fuzzing.serve, tmp_path)
    for number in range(FIRST, LAST):
        if said := worker.fault(number):
            found.append(said)
            worker.end()
            worker = Worker(fuzzing.serve, tmp_path)
    worker.end()
    assert not found, "\n".join(found)

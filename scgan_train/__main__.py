"""`python -m scgan_train` is `scgan train`; `torchrun -m scgan_train` is several: see docs/training.md."""

from __future__ import annotations

import os
import sys

from scgan_train.app import command, guarded

OPEN = (
    "note: torchrun listens on every network, and who reaches it can run code as you; "
    "docs/training.md has the command for one host"
)


def train() -> int:
    """Train, as one of the processes that torchrun started or alone, and return the exit code."""
    from scgan_train.app.actions import say
    from scgan_train.training import distributed

    with distributed.group():
        if distributed.size() > 1 and distributed.exposed() and distributed.rank() == 0:
            say(OPEN)
        return command()


def main() -> None:
    """Be the command `scgan train`."""
    sys.argv[1:1] = ["train"]
    try:
        guarded(train)
    except SystemExit as exit:
        if "RANK" in os.environ:
            from scgan_train.training import distributed

            distributed.leave(exit.code if isinstance(exit.code, int) else 1)
        raise


if __name__ == "__main__":
    main()

"""`python -m scgan_train` is `scgan`; under torchrun it is several processes: docs/training.md."""

from __future__ import annotations

import os

from scgan_train.app import command, guarded

OPEN = (
    "note: torchrun listens on every network, and who reaches it can run code as you; "
    "docs/training.md has the command for one host"
)


def together() -> int:
    """Run as one of the processes that torchrun started, and return the exit code."""
    from scgan_train.app.actions import say
    from scgan_train.fitting import distributed

    with distributed.group():
        if distributed.size() > 1 and distributed.exposed() and distributed.rank() == 0:
            say(OPEN, always=True)
        return command()


def main() -> None:
    """Run the command `scgan`, alone or under torchrun."""
    try:
        guarded(together if "RANK" in os.environ else command)
    except SystemExit as exit:
        if "RANK" in os.environ:
            from scgan_train.fitting import distributed

            distributed.leave(exit.code if isinstance(exit.code, int) else 1)
        raise


if __name__ == "__main__":
    main()

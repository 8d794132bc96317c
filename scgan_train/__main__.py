"""`python -m scgan_train ...` is `scgan train ...`; `torchrun --nproc-per-node N -m scgan_train ...` is it N times.

A second front door beside the command `scgan`.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Train, as one of the processes that torchrun started or alone."""
    from scgan_train.app import main as run_command
    from scgan_train.training import distributed

    sys.argv[1:1] = ["train"]
    try:
        with distributed.group():
            run_command()
    finally:
        # when one process fails, torchrun ends the others, even those that are about to end
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


if __name__ == "__main__":
    main()

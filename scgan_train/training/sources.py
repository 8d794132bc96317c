"""Where rows for training come from: a built-in distribution, a file, or memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scgan_infer.columns import Table
from scgan_infer.rows.formats import read_table
from scgan_train.config import Config
from scgan_train.datasets import source_of
from scgan_train.given import unwalled

BUILT_IN_ROWS = 52_632  # 5 % are held out, so 50,000 train


def load(data: Any, config: Config) -> tuple[str, Table]:
    """Return the source's name and its rows, at most `config.max_rows` of them, a uniform sample in their order.

    Args:
        data: a built-in distribution, a file, or what else `read_table` takes.
        config: chooses and describes columns.

    Raises:
        DataError: data that can't be read.
        UsageError: columns chosen or described that are not there.
    """
    guessed = read_table(
        source_of(data, BUILT_IN_ROWS, config.seed),
        names=list(config.select) or None,
        overrides=config.columns,
        max_rows=config.max_rows,
        generator=np.random.default_rng([config.seed, 0x5A]),
        missing=config.missing,
        header=config.header,
    )
    table = unwalled(guessed, config)
    return str(data) if isinstance(data, str | Path) and str(data) != "-" else "rows", table

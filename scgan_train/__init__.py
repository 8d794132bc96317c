"""Train scgan models with PyTorch and export them to bundles of ONNX graphs.

    import scgan_train

    run = scgan_train.train("rows.csv", {"seed": 1, "columns": {"phi": {"kind": "periodic", "period": 360}}})
    scgan_train.export(run, "exported/rows")

Importing this package does not import torch; the functions do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from scgan_train.config import Config
    from scgan_train.training.run import Run

__all__ = ["export", "train"]


def train(
    data: str | Path | ArrayLike,
    config: Config | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
) -> Run:
    """Train on rows and return the finished run.

    Args:
        data: the name of a built-in distribution, a file, or rows [n, d].
        config: a `Config`, or the settings that differ from its defaults as a nested dict.
        out: the run folder; by default a new one in `runs/`.
        resume: finish the run in `out`.

    Raises:
        DataError: data that can't be read, or too few rows.
        DeviceError: the device asked for is not available.
        UsageError: a setting that does not exist or does not fit.
    """
    from scgan_train import config as configs
    from scgan_train.training.sources import free_folder, load
    from scgan_train.training.stages import train as run_stages

    if not isinstance(config, configs.Config):
        config = configs.from_dict(config or {})
    source, table = load(data, config)
    return run_stages(
        table, config, Path(out) if out else free_folder(source), source, resume=resume
    )


def export(run: Run | str | Path, path: str | Path) -> Path:
    """Write a finished run as a bundle folder and return its path.

    Raises:
        ModelError: the run is not finished or is damaged.
        ParityError: a graph does not compute what the trained network computes; nothing is written.
        DataError: the folder can't be written.
    """
    from scgan_train.exporting.exporter import export as write
    from scgan_train.training.run import Run

    return write(run if isinstance(run, Run) else Run.load(Path(run)), Path(path))

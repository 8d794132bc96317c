"""Train scgan models with PyTorch and export them to bundles of ONNX graphs.

    import scgan_train

    run = scgan_train.train("rows.csv", {"seed": 1, "encoder": {"steps": 1000}})
    scgan_train.export(run, "exported/rows")
    rows = scgan_train.SCGAN(preset="quick").fit(frame).sample(1000)

Importing this package does not import torch; the functions do.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what the command imports first imports nothing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from numpy.typing import ArrayLike

    from scgan_train.config import Config
    from scgan_train.estimator import SCGAN
    from scgan_train.inspecting import Inspection
    from scgan_train.training.run import Run

__all__ = ["SCGAN", "export", "inspect", "train"]


def __getattr__(name: str) -> Any:
    if name != "SCGAN":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scgan_train.estimator import SCGAN

    return SCGAN


def inspect(
    data: str | Path | ArrayLike, config: Config | Mapping[str, Any] | None = None
) -> Inspection:
    """Return what the columns of rows are taken for before anything is trained, and what that will cost.

    Args:
        data: as in `train`.
        config: as in `train`.

    Raises:
        DataError: data that can't be read.
        UsageError: a setting that does not exist or does not fit.
    """
    from scgan_train import config as configs
    from scgan_train.inspecting import inspect as look
    from scgan_train.training import sources

    wanted = config if isinstance(config, configs.Config) else configs.from_dict(config or {})
    return look(sources.load(data, wanted)[1], wanted)


def train(
    data: str | Path | ArrayLike | None = None,
    config: Config | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    say: Callable[[str], object] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Run:
    """Train on rows and return the finished run.

    Args:
        data: a built-in distribution, a file, or rows [n, d]; by default `eight_gaussians`, or the
            rows of the run to resume.
        config: a `Config`, or the settings that differ from its defaults as a nested dict.
        out: the run folder; by default a new one in `runs/`, or the newest there to resume.
        resume: finish the run in `out`, with its own settings; those in `config` must agree.
        force: let the new run take the place of one that is in `out`.
        say: takes a line for people: what was noticed in the rows, how many clusters.
        defaults: of a new run, what `config` does not name; one that is resumed has its own.

    Raises:
        DataError: data that can't be read, too few rows, or other rows than the run began with.
        DeviceError: the device asked for is not available.
        ModelError: there is no such run to resume, or it is damaged.
        UsageError: a setting that does not exist or does not fit, or a folder that is taken.
    """
    from pathlib import Path

    from scgan_train import config as configs
    from scgan_train import runs

    settings = configs.to_dict(config) if isinstance(config, configs.Config) else config or {}
    path = None if out is None else Path(out)
    tell = say or (lambda line: None)
    return runs.train(data, settings, path, tell, defaults or {}, resume=resume, force=force)


def export(run: Run | str | Path, path: str | Path) -> Path:
    """Write a finished run as a bundle folder and return its path.

    Raises:
        ModelError: the run is not finished or is damaged.
        ParityError: a graph does not compute what the trained network computes; nothing is written.
        DataError: the folder can't be written.
    """
    from pathlib import Path

    from scgan_train.exporting.exporter import export as write
    from scgan_train.training.run import Run
    from scgan_train.watch import Watch

    with Watch() as watch:
        watch.begin("export")
        return write(run if isinstance(run, Run) else Run.load(Path(run)), Path(path))

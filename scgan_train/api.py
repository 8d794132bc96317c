"""The calls of the package: train, inspect and export; what they need is imported when they are called."""

from __future__ import annotations

TYPE_CHECKING = False  # what the command imports first imports nothing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import ArrayLike

    from scgan_train.config import Config
    from scgan_train.coordinates.constraints import Constraint
    from scgan_train.inspecting import Inspection
    from scgan_train.run_folder import Run


def inspect(
    data: str | Path | ArrayLike, config: Config | Mapping[str, Any] | None = None
) -> Inspection:
    """Return what columns are taken for before anything is trained, and what that will cost; arguments as in `train`.

    Raises:
        DataError: data that can't be read.
        UsageError: a setting that does not exist or does not fit.
    """
    import torch  # noqa: F401  the first to be missed, by the name that users know

    from scgan_train import config as configs
    from scgan_train.datasets import load
    from scgan_train.inspecting import inspect as look

    wanted = config if isinstance(config, configs.Config) else configs.from_dict(config or {})
    return look(load(data, wanted)[1], wanted)


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
    from shlex import quote

    import torch  # noqa: F401  see `inspect`

    from scgan_infer.errors import UsageError
    from scgan_train import config as configs
    from scgan_train import runs
    from scgan_train.datasets import DATASETS, load
    from scgan_train.fitting import distributed
    from scgan_train.inspecting import inspect as look
    from scgan_train.run_folder import Run
    from scgan_train.training import stages

    settings = configs.to_dict(config) if isinstance(config, configs.Config) else config or {}
    path = None if out is None else Path(out)
    tell = say if say and distributed.rank() == 0 else lambda line: None
    if resume and path is not None and not path.exists():
        if data is None:
            raise UsageError(f"{path}: there is no such run to resume; name another, or its rows")
        tell(f"{path}: there is nothing to resume yet; it begins now")
        resume = False
    if resume:
        path = path or runs.newest("run.json")
        begun = Run.load(path)
        own = begun.config
        wanted = configs.from_dict(configs.merge(configs.to_dict(own), runs.fixed(settings)))
        data = begun.source if data is None else data
    else:
        wanted = own = configs.from_dict(configs.merge(defaults or {}, settings))
    source, table = load(runs.DEFAULT if data is None else data, own)
    path = path or runs.free_folder(source)

    def begin(constraints: Sequence[Constraint]) -> None:
        if not resume and source not in DATASETS:
            for line in look(table, wanted, constraints).lines():
                tell(line)

    try:
        run = stages.train(table, wanted, path, source, resume=resume, force=force, begin=begin)
    except KeyboardInterrupt:
        if (path / "run.json").is_file():
            again = f"scgan train --resume --out {quote(str(path))}"
            tell(f"note: stages that are finished are kept; go on with {again}")
        raise
    tell(f"clusters: {run.facts['clusters']}")
    took = f"{sum(run.seconds.values()):.0f} s on {run.facts['rows']} rows"
    tell(f"run: {run.path} ({took}); next: scgan export {quote(str(run.path))}")
    return run


def export(run: Run | str | Path, path: str | Path) -> Path:
    """Write a finished run as a bundle folder and return its path.

    Raises:
        ModelError: the run is not finished or is damaged.
        ParityError: a graph does not compute what the trained network computes; nothing is written.
        DataError: the folder can't be written.
    """
    from pathlib import Path

    from scgan_train.exporting.exporter import export as write
    from scgan_train.run_folder import Run
    from scgan_train.watch import Watch

    with Watch() as watch:
        watch.begin("export")
        return write(run if isinstance(run, Run) else Run.load(Path(run)), Path(path))

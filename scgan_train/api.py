"""The calls of the package: train, inspect and export; they import what they need when called."""

from __future__ import annotations

TYPE_CHECKING = False  # what the command imports first imports nothing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import ArrayLike

    from scgan_infer.columns import Table
    from scgan_train.config import Config
    from scgan_train.coordinates.constraints import Constraint
    from scgan_train.inspecting import Inspection
    from scgan_train.run_folder import Run


def inspect(
    data: str | Path | ArrayLike, config: Config | Mapping[str, Any] | None = None
) -> Inspection:
    """Return the columns' detected properties and a training's cost; arguments as in `train`.

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
        data: a built-in distribution, a file, or rows [n, d]; by default `eight_gaussians`, or
            the resumed run's rows.
        config: a `Config`, or the settings that differ from its defaults as a nested dict.
        out: the run folder; by default a new one in `runs/`, or the newest there to resume.
        resume: finish the run in `out`, with its own settings; those in `config` must agree.
        force: replace a run that is in `out`.
        say: called with a line for people: notes on the rows, the number of clusters.
        defaults: of a new run, for settings missing in `config`; a resumed run ignores them.

    Raises:
        DataError: data that can't be read, too few rows, or other rows than the run began with.
        DeviceError: the device asked for is not available.
        ModelError: there is no such run to resume, or it is damaged.
        UsageError: a setting that does not exist or does not fit, or a folder that is taken.
    """
    from pathlib import Path

    import torch  # noqa: F401  see `inspect`

    from scgan_infer.errors import UsageError
    from scgan_train import config as configs
    from scgan_train import runs
    from scgan_train.datasets import load
    from scgan_train.fitting import distributed
    from scgan_train.run_folder import Run

    settings = configs.to_dict(config) if isinstance(config, configs.Config) else config or {}
    path = None if out is None else Path(out)
    tell = say if say and distributed.rank() == 0 else lambda line: None
    if resume and path is not None and not path.exists():
        if data is None:
            raise UsageError(f"{path}: there is no such run to resume; name another, or its rows")
        tell(f"{path}: there is nothing to resume yet; it begins now")
        resume = False
    if resume:
        begun = Run.load(path or runs.newest("run.json"))
        path, base = begun.path, begun.config
        wanted = configs.from_dict(configs.merge(configs.to_dict(base), runs.fixed(settings)))
        data = begun.source if data is None else data
    else:
        wanted = base = configs.from_dict(configs.merge(defaults or {}, settings))
    source, table = load(runs.DEFAULT if data is None else data, base)
    return _train(table, wanted, path or runs.free_folder(source), source, resume, force, tell)


def _train(
    table: Table, config: Config, path: Path, source: str, resume: bool, force: bool, say: Any
) -> Run:
    """Train; `say` is called with notes on the rows and the next command."""
    from shlex import quote

    from scgan_train.datasets import DATASETS
    from scgan_train.inspecting import inspect as look
    from scgan_train.training import stages

    def begin(constraints: Sequence[Constraint]) -> None:
        if not resume and source not in DATASETS:
            for line in look(table, config, constraints).lines():
                say(line)

    try:
        run = stages.train(table, config, path, source, resume=resume, force=force, begin=begin)
    except KeyboardInterrupt:
        if (path / "run.json").is_file():
            again = f"scgan train --resume --out {quote(str(path))}"
            say(f"note: stages that are finished are kept; go on with {again}")
        raise
    say(f"clusters: {run.facts['clusters']}")
    took = f"{sum(run.seconds.values()):.0f} s on {run.facts['rows']} rows"
    say(f"run: {run.path} ({took}); next: scgan export {quote(str(run.path))}")
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

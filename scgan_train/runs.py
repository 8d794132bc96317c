"""Where runs go, and whose settings a training takes: those given, or those of a begun run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from scgan_infer.errors import UsageError
from scgan_train import config as configs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from scgan_train.constraints import Constraint
    from scgan_train.training.run import Run

RUNS = Path("runs")
DEFAULT = "eight_gaussians"

Say = Callable[[str], object]


def newest(part: str) -> Path:
    """Return the run in `runs/` whose file of this name is the newest.

    Raises:
        UsageError: there is none.
    """
    found = sorted(RUNS.glob(f"*/{part}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UsageError(f"no run in {RUNS}/ has {part}; name one, or make one with `scgan train`")
    return found[-1].parent


def free_folder(source: str) -> Path:
    """Return a new folder in `runs/`: the source's name, numbered from the second on."""
    stem = Path(source).stem
    path, number = RUNS / stem, 2
    while path.exists():
        path, number = RUNS / f"{stem}-{number}", number + 1
    return path


def train(
    data: str | Path | ArrayLike | None,
    settings: Mapping[str, Any],
    out: Path | None,
    say: Say,
    defaults: Mapping[str, Any],
    *,
    resume: bool,
    force: bool,
) -> Run:
    """Read the rows, train and say what came of it; see `scgan_train.train`."""
    from scgan_train.datasets import DATASETS
    from scgan_train.inspecting import inspect
    from scgan_train.training import distributed, sources, stages
    from scgan_train.training.run import Run

    tell = say if distributed.rank() == 0 else lambda message: None
    if resume and out is not None and not out.exists():
        if data is None:
            raise UsageError(f"{out}: there is no such run to resume; name another, or its rows")
        tell(f"{out}: there is nothing to resume yet; it begins now")
        resume = False
    if resume:
        out = out or newest("run.json")
        begun = Run.load(out)
        own = begun.config
        config = configs.from_dict(configs.merge(configs.to_dict(own), _fixed(settings)))
        data = begun.source if data is None else data
    else:
        config = own = configs.from_dict(configs.merge(defaults, settings))
    source, table = sources.load(DEFAULT if data is None else data, own)

    def begin(constraints: Sequence[Constraint]) -> None:
        if not resume and source not in DATASETS:
            for line in inspect(table, config, constraints).lines():
                tell(line)

    path = out or free_folder(source)
    try:
        run = stages.train(table, config, path, source, resume=resume, force=force, begin=begin)
    except KeyboardInterrupt:
        if (path / "run.json").is_file():
            again = f"scgan train --resume --out {quote(str(path))}"
            tell(f"note: stages that are finished are kept; go on with {again}")
        raise
    tell(f"clusters: {run.facts['clusters']}")
    took = f"{sum(run.seconds.values()):.0f} s on {run.facts['rows']} rows"
    tell(f"run: {run.path} ({took}); next: scgan export {quote(str(run.path))}")
    return run


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that say "auto": what a run has made of that agrees."""
    return {
        key: _fixed(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value != "auto"
    }

"""Shared code of commands on bundles: finding a bundle, choosing rows, writing output."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from scgan_infer.errors import UsageError, install
from scgan_infer.text import visible
from scgan_train.watch import LEVEL, Watch

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from scgan_infer.bundle.manifest import Manifest
    from scgan_infer.columns import Column, Table
    from scgan_infer.rows.writers import Writer
    from scgan_infer.sampling.draw import Floats
    from scgan_infer.sampling.engines import Job
    from scgan_infer.sampling.given import Given
    from scgan_infer.sampling.model import Model

GPU = Path("/dev/nvidiactl")  # exists where a driver is loaded
SHIPPED = "eight_gaussians"
# files in a folder of --rows-per-file, of reproduce, and of one replaced when the new is complete
PARTS = ("part-[0-9][0-9][0-9][0-9][0-9][0-9].*", ".part-*", "manifest.json", ".manifest.json*")
REPRODUCED = ("settings.json", "cells", "runs", "table.csv", "table.md", "figure[0-9]-*")
ANY = ("*",)
FLAGS = {
    "header=false": "--no-header",
    "force=true": "--force",
    "resume=true": "--resume",
    "preset=standard": "--preset standard",
    "mapper.kind=flow": "--mapper flow",
    "constraints=false": "--set constraints=false",
    "where={NAME: [A, B]}": "--where NAME=A --where NAME=B",
}
SETTING = re.compile(
    r'(?<![\w\'"])columns\.(?:[\w-]+|"(?:[^"\\]|\\.)*")\.\w+=[\w.]*\w'
    rf"|(?<![\w.=])(?:{'|'.join(map(re.escape, FLAGS))})(?!\w)"
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def say(message: str, *, always: bool = False) -> None:
    """Write one line to stderr, unprintable characters escaped; a closed stderr is no error.

    With --quiet only messages with `always` are written. Settings in it are written as options.
    """
    if not always and LEVEL.get() == -1:
        return
    try:
        print(visible(as_options(message)), file=sys.stderr, flush=True)
    except OSError:  # Python would write again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def show(*lines: str) -> None:
    """Write lines to stdout, unprintable characters escaped."""
    print("\n".join(map(visible, lines)), flush=True)


def as_options(text: str) -> str:
    r"""Return a text with settings of columns rewritten as command-line options.

    >>> as_options('choose columns.k.kind=id or columns."a b".kind=drop')
    'choose --set=columns.k.kind=id or \'--set=columns."a b".kind=drop\''
    >>> as_options("resume that run, or replace it with force=true")
    'resume that run, or replace it with --force'
    """
    return SETTING.sub(lambda match: FLAGS.get(match[0]) or quote(f"--set={match[0]}"), text)


def find_bundle(model: Path | None) -> Path:
    """Return the bundle asked for, else the newest in exported/, else the one scgan ships with.

    Raises:
        UsageError: there is none.
    """
    if model is not None:
        return model
    made = sorted(Path("exported").glob("*/bundle.json"), key=lambda path: path.stat().st_mtime)
    import scgan_infer

    here = Path(scgan_infer.__file__).parent
    shipped = [here / "shipped" / SHIPPED, here.parent / "exported" / SHIPPED]
    bundles = [made[-1].parent] if made else [path for path in shipped if path.is_dir()]
    if not bundles:
        raise UsageError(
            "no bundle in exported/; name one with --model, or make one with `scgan export`"
        )
    say(f"model: {bundles[0]}{'' if made else ' (ships with scgan)'}")
    return bundles[0]


def next_step() -> str:
    """Return the next step in this folder: sample, export, or train."""
    if Path("bundle.json").is_file():
        return "this folder is a bundle; next: scgan sample --model . --n 10"
    made = [*Path("exported").glob("*/bundle.json"), *Path("runs").glob("*/run.json")]
    if not made and find_spec("torch") is None:
        return f"next: scgan sample --n 10000 --out samples.npy; to train, first {install('train')}"
    if not made:
        return "next: scgan train, or scgan inspect FILE with rows of yours"
    newest = max(made, key=lambda path: path.stat().st_mtime)
    folder = quote(str(newest.parent))
    if newest.name == "bundle.json":
        return f"next: {sample_command(newest.parent)}"
    if (newest.parent / "decoder.safetensors").exists():
        return f"next: scgan export {folder}"
    return f"next: scgan train --resume --out {folder}"


def sample_command(bundle: Path) -> str:
    """Return a command that samples from a bundle into a new file."""
    free, number = Path("samples.npy"), 2
    while free.exists():
        free, number = Path(f"samples-{number}.npy"), number + 1
    return f"scgan sample --model {quote(str(bundle))} --n 10000 --out {free}"


def check_free(path: Path | str | None, force: bool, patterns: Sequence[str] = ()) -> None:
    """Refuse to overwrite what exists, unless `force` is set.

    Args:
        path: the file to appear; or the folder, where `patterns` are given.
        force: replace it.
        patterns: of all files that scgan writes into the folder; with `force` it is removed.

    Raises:
        UsageError: the path exists, or the folder holds files that scgan did not write.
    """
    path = Path(path or "-")
    taken = path.is_file() and path.stat().st_size > 0
    if patterns:
        taken = path.is_dir() and any(path.iterdir())
    if not taken or str(path) == "-":
        return
    if not force:
        raise UsageError(f"{path} exists; choose another name, or replace it with --force")
    if patterns:
        names = sorted(entry.name for entry in path.iterdir())
        foreign = [name for name in names if not any(fnmatch(name, glob) for glob in patterns)]
        if foreign:
            raise UsageError(
                f"{path} holds {foreign[0]}, which scgan did not write; choose another name"
            )
        shutil.rmtree(path)


def load(model: Path | None, device: str, threads: int | None) -> Model:
    """Return the loaded bundle, and report on stderr which device `auto` chose."""
    from scgan_infer.sampling import model as runtime

    loaded = runtime.load(find_bundle(model), device, threads, lazy=True)
    if device == "auto" and (loaded.device == "cuda" or GPU.exists()):
        say(f"device: {loaded.device}")
    return loaded


def judged_model(model: Path | None, samples: Path | None) -> Model | None:
    """Return the bundle to evaluate; None if --samples is evaluated alone."""
    from scgan_infer.sampling import model as runtime

    return runtime.load(find_bundle(model)) if model is not None or samples is None else None


def part(n: int, shard: str | None) -> tuple[int, int]:
    """Return the first row and the number of rows of a shard I/M of n rows.

    Raises:
        UsageError: it is not written as I/M with I from 1 to M.
    """
    if shard is None:
        return 0, n
    index, _, total = shard.partition("/")
    if not (index.isdigit() and total.isdigit() and 1 <= int(index) <= int(total)):
        raise UsageError(f"--shard {shard!r}: write it as I/M with I from 1 to M, for example 1/8")
    i, m = int(index), int(total)
    low, high = n * (i - 1) // m, n * i // m
    return low, high - low


def given(
    model: Model, text: str | None, each: int | None, n: int | None, start: int, keep: str | None
) -> tuple[Given | None, int, dict[str, NDArray[Any]]]:
    """Return the conditions of --given (a file or a=1,b=2), how many rows, and cells by column.

    The cells are to be copied. Values beyond the training range are reported on stderr.

    Raises:
        DataError: conditions that don't fit the given columns.
        UsageError: options that don't go together, or conditions that can't be read.
    """
    import numpy as np

    from scgan_infer.rows.formats import read_raw
    from scgan_infer.sampling.given import given_of

    file = text is not None and ("=" not in text or Path(text).exists())
    if not file and (each is not None or keep is not None):
        option = "--keep" if each is None else "--each"
        advice = "name it with --given" if text is None else "one condition has --n rows"
        raise UsageError(f"{option} is for the conditions of a file; {advice}")
    many = 10_000 if n is None else n
    if text is None:
        return None, many, {}
    if not file:
        one = _one_condition(text)
        conditions = given_of(model.manifest, one)
        cells = {name: np.array([value], dtype=object) for name, value in one.items()}
    else:
        if n is not None:
            raise UsageError(
                "--given FILE says how many rows there are; leave --n out, or use --each"
            )
        if text == "-":
            raise UsageError(
                "--given reads its file twice, which standard input can't be; name a file"
            )
        conditions = given_of(model.manifest, text, 1 if each is None else each)
        many = conditions.count(None, start)
        others = [name.strip() for name in (keep or "").split(",") if name.strip()]
        names = {column.name for column in model.manifest.whole}
        if taken := [name for name in others if name in names]:
            raise UsageError(f"--keep {taken[0]}: the bundle has a column of that name; rename it")
        cells = read_raw(text, [column.loose for column in model.given], others)
    for name, count in conditions.outside(model.manifest.given).items():
        say(
            f"note: {name} lies beyond its training range "
            f"in {count} of {len(conditions.values)} conditions"
        )
    return conditions, many, cells


def _one_condition(text: str) -> dict[str, str]:
    """Return the values that a=1,b=2 gives, by name."""
    import csv

    pairs = [pair.partition("=") for pair in next(csv.reader([text]))]
    names = [name.strip() for name, *_ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"--given names {twice[0]} twice; name it once, or name a file")
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise UsageError(
            f'--given {wrong[0]!r}: write it as a=1,b=2 or "a=1, 2",b=2, or name a file'
        )
    return dict(zip(names, [value for *_, value in pairs], strict=True))


def conditions(model: Model, cluster: int | None, where: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of `Draw` for --cluster and --where: clusters, and values by column.

    A column named again may have any of its values. A bundle whose head has no network has only
    clusters.

    Raises:
        UsageError: a condition that is not NAME=VALUE, or that this bundle can't meet.
    """
    if not where:
        return {"cluster": cluster}
    if model.manifest.sizes["h"] > 1:
        wanted: dict[str, list[str]] = {}
        names = [column.name for column in model.manifest.whole if "=" in column.name]
        for condition in where:
            first = condition.partition("=")[0]
            prefixes = [name for name in names if condition.startswith(f"{name}=")]
            name = max(prefixes, key=len, default=first)
            equals, value = condition[len(name) :][:1], condition[len(name) + 1 :]
            if not equals:
                raise UsageError(f"condition {condition!r}: write NAME=VALUE")
            wanted.setdefault(name, []).append(value)
        return {"cluster": cluster, "where": wanted}
    if cluster is not None:
        raise UsageError("--cluster and --where name clusters both; give one of them")
    from scgan_infer.sampling.where import clusters_where

    fitting: dict[str, set[int]] = {}
    for condition in where:  # any of a column's values, and one of every column named
        fitting.setdefault(condition.partition("=")[0], set()).update(
            clusters_where(model, condition)
        )
    if not (common := set.intersection(*fitting.values())):
        raise UsageError(f"--where {' --where '.join(where)}: no cluster has all of that")
    return {"cluster": tuple(sorted(common))}


def inert(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns with ' before names that begin with ' or would be formulas in spreadsheets."""
    import numpy as np

    from scgan_infer.rows.copies import Copied

    def name(text: str) -> str:
        return f"'{text}" if text.startswith(FORMULA) else text

    def safe(column: Column) -> Column:
        if isinstance(column, Copied) and column.cells.dtype.kind == "O":
            cells = np.array([name(cell) for cell in column.cells.tolist()], dtype=object)
            return replace(column, name=name(column.name), cells=cells)
        named = tuple(map(name, column.categories))
        return replace(column, name=name(column.name), categories=named)

    return tuple(map(safe, columns))


def compute(
    job: Job,
    engine: str,
    out: str,
    columns: Sequence[Column],
    rows: int | None = None,
    rows_per_file: int | None = None,
    resume: bool = False,
) -> None:
    """Run a job on an engine and write its rows; arguments as in `scgan sample`.

    Raises:
        UsageError: an unknown engine or suffix.
        DataError: rows that can't be read, or a file that can't be written.
    """
    from scgan_infer.rows.formats import open_writer
    from scgan_infer.sampling.draw import Draw
    from scgan_infer.sampling.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown; choose from {', '.join(ENGINES)}")
    draw = job.draw or Draw()
    asked = f"{draw.seed} {draw.start} {draw.cluster} {draw.temperature}"
    asked += f" {draw.where}" if draw.where else ""
    asked += f" {job.given.identity}" if job.given else ""
    identity = f"{job.op} {job.model.bundle.sha256} {asked}"
    more: Any = {"start": draw.start, "resume": resume, "job": identity}
    if rows_per_file is not None:
        from scgan_infer.rows.shards import ShardWriter

        writer: Writer = ShardWriter(out, columns, rows, rows_per_file, **more)
    else:
        writer = open_writer(out, columns, rows, **more)
    with writer, Watch() as watch:
        count, matches, draws = writer.done, 0, 0
        watch.begin(job.op, rows)

        def searching(looked: int, more: int) -> None:
            nonlocal matches, draws
            matches, draws = matches + more, draws + looked
            watch.show(count, f"{matches:,} found in {draws:,} draws")

        job.model.searching = searching
        if count:
            say(f"going on after {count} rows")
            job = replace(job, draw=draw.part(draw.start + count, draw.start + draw.n))
        row = job.draw.start if job.draw else 0
        for piece in ENGINES[engine](job):
            writer.write(_placed(job, row, piece, columns))
            row, count = row + len(piece), count + len(piece)
            watch.show(count)
    say_rows(out, count)


def _placed(job: Job, row: int, piece: Floats, columns: Sequence[Column]) -> Floats:
    """Return generated rows [k, d] in the output's columns; ignored zeros in copied ones."""
    if job.given is None:
        return piece
    import numpy as np

    from scgan_infer.rows.copies import Copied

    whole = job.model.together(piece, job.given.rows(row, row + len(piece)))
    rows = np.zeros((len(piece), len(columns)), np.float32)
    rows[:, : whole.shape[1]] = whole
    copies = [isinstance(column, Copied) for column in columns]
    rows[:, copies] = 0
    return rows


def write_table(table: Table, out: str) -> None:
    """Write rows and report it; raises as `compute`."""
    from scgan_infer.rows.formats import open_writer

    with open_writer(out, table.columns, len(table)) as writer:
        writer.write(table.values)
    say_rows(out, len(table))


def say_rows(out: str, n: int) -> None:
    """Report how many rows were written."""
    if out != "-":
        say(f"{n} rows: {out}")


def save_picture(picture: Figure, out: Path) -> None:
    """Write a picture and report it."""
    from scgan_infer.judging.canvas import save

    save(picture, out)
    say(f"picture: {out}")


def about(manifest: Manifest) -> Iterator[str]:
    """Yield the lines of `scgan info`: sizes, columns, graphs, provenance and figures."""
    sizes = manifest.sizes
    yield f"{manifest.name}: bundle of format {manifest.format}, opset {manifest.opset}"
    yield (
        f"latents {manifest.latents}{f' ({manifest.mapper})' if manifest.mapper else ''}; "
        f"d {sizes['d']} columns, e {sizes['e']} latents, m {sizes['m']} and q {sizes['q']} noise "
        f"inputs, K {sizes['K']} clusters"
    )
    given = {one.column.name for one in manifest.given}
    for column in manifest.whole:
        extra = column.to_dict()
        del extra["name"], extra["kind"]
        kind = f"{column.kind}, given" if column.name in given else column.kind
        yield f"  {column.name}: {kind} {json.dumps(extra) if extra else ''}".rstrip()
    for name, file in sorted(manifest.files.items()):
        yield f"  {name:<16} {file['bytes']:>9} bytes  sha256 {file['sha256'][:16]}"
    for title, entries in (("provenance", manifest.provenance), ("metrics", manifest.metrics)):
        yield f"{title}:"
        for key, value in entries.items():
            if not isinstance(value, dict):
                for one in value if isinstance(value, list) else [value]:
                    yield f"  {key:<16} {one}"

"""The command line: each command parses, makes one call and prints; messages go to stderr, data to stdout or --out."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, StrEnum
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from scgan_infer.errors import ScganError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scgan_infer.columns import Column, Table
    from scgan_infer.engines import Job
    from scgan_infer.evaluation import Subject
    from scgan_infer.runtime import Model as Loaded

BadCommandLine: type[Exception] = typer.BadParameter.__mro__[1]

SHIPPED = "eight_gaussians"

app = typer.Typer(
    name="scgan",
    help="Generate data that lives on disconnected pieces: train in PyTorch, export to ONNX, sample anywhere.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Preset(StrEnum):
    """Sizes of a training."""

    quick = "quick"
    standard = "standard"


class Latents(StrEnum):
    """Where latents for generation come from."""

    gaussian = "gaussian"
    centers = "centers"
    mapper = "mapper"
    real = "real"


class Device(StrEnum):
    """What computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Noise(StrEnum):
    """Decoder noise of reconstructions."""

    fixed = "fixed"
    random = "random"


Data = Annotated[str, typer.Argument(metavar="DATA", help="A built-in distribution or a file of rows.")]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", metavar="BUNDLE", envvar="SCGAN_MODEL", help="Bundle; default: newest in exported/."
    ),
]
Out = Annotated[
    str,
    typer.Option("--out", "-o", metavar="FILE", help="File to write; its suffix is the format; - is CSV."),
]
Seed = Annotated[int, typer.Option("--seed", "-s", min=0, envvar="SCGAN_SEED", help="Random seed.")]
OnDevice = Annotated[Device, typer.Option("--device", envvar="SCGAN_DEVICE", help="What computes.")]
Start = Annotated[int, typer.Option("--start", min=0, help="Index of the first row.")]
OnEngine = Annotated[
    str, typer.Option("--engine", envvar="SCGAN_ENGINE", help="Who computes: local or dask.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler", metavar="ADDRESS", envvar="SCGAN_SCHEDULER", help="Dask scheduler; default: one here."
    ),
]
RowsPerFile = Annotated[
    int | None,
    typer.Option(
        "--rows-per-file", min=1, metavar="M", help="Write --out DIR/ in files of M rows, with hashes."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted --out.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, envvar="SCGAN_THREADS", help="Worker threads; default: cores."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(message: str) -> None:
    """Write one line to stderr."""
    typer.echo(message, err=True)


def nobody(message: str) -> None:
    """Say nothing: another process says it."""


def find_bundle(model: Path | None) -> Path:
    """Return the bundle asked for; else the newest in exported/; else the one that ships with the package."""
    if model is not None:
        return model
    made = sorted(Path("exported").glob("*/bundle.json"), key=lambda path: path.stat().st_mtime)
    here = Path(__file__).parent
    shipped = [here / "scgan_infer" / "shipped" / SHIPPED, here / "exported" / SHIPPED]
    found = made[-1].parent if made else next((path for path in shipped if path.is_dir()), None)
    if found is None:
        raise UsageError("no bundle in exported/; name one with --model, or make one with `scgan export`")
    say(f"model: {found}{'' if made else ' (ships with scgan)'}")
    return found


def version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from importlib.metadata import version as installed

        typer.echo(f"scgan {installed('scgan')}")
        raise typer.Exit


@app.callback()
def options(
    shown: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of the whole program."""


@app.command()
def train(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="A built-in distribution or a file.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="RUN", help="Run folder; default: a new one in runs/."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", envvar="SCGAN_CONFIG", help="TOML file of settings."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. decoder.width=128. Repeatable."),
    ] = None,
    preset: Annotated[
        Preset, typer.Option("--preset", envvar="SCGAN_PRESET", help="Speed or quality.")
    ] = Preset.standard,
    seed: Annotated[
        int | None, typer.Option("--seed", "-s", min=0, envvar="SCGAN_SEED", help="Random seed.")
    ] = None,
    latents: Annotated[
        Latents | None,
        typer.Option("--latents", envvar="SCGAN_LATENTS", help="Latent model; default: mapper."),
    ] = None,
    mapper: Annotated[
        str | None, typer.Option("--mapper", envvar="SCGAN_MAPPER", help="Kind of map; default: auto.")
    ] = None,
    clusters: Annotated[
        str | None,
        typer.Option("--clusters", metavar="K|auto", envvar="SCGAN_CLUSTERS", help="Number of clusters."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="a,b", help="Use these columns only.")
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="a,b", help="Positive columns, seen as logarithms.")
    ] = None,
    periodic: Annotated[
        list[str] | None,
        typer.Option("--periodic", metavar="phi=360", help="Columns that wrap around, with their period."),
    ] = None,
    bounded: Annotated[
        list[str] | None,
        typer.Option("--bounded", metavar="a=0:1", help="Columns with walls, either may be left out."),
    ] = None,
    integer: Annotated[
        list[str] | None, typer.Option("--integer", metavar="a,b", help="Columns of whole numbers.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", metavar="a,b", help="Columns of names.")
    ] = None,
    device: Annotated[
        Device | None, typer.Option("--device", envvar="SCGAN_DEVICE", help="What trains; default: auto.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish the run in --out.")] = False,
) -> None:
    """Train on a built-in distribution or on your own rows."""
    from scgan_train import config as configs
    from scgan_train import distributed, sources
    from scgan_train.stages import train as run_stages

    flags: dict[str, Any] = {
        key: value.value if isinstance(value, Enum) else value
        for key, value in {"seed": seed, "latents": latents, "device": device}.items()
        if value is not None
    }
    if mapper is not None:
        flags["mapper"] = {"kind": mapper}
    if clusters is not None:
        flags["clusters"] = {"k": clusters if clusters == "auto" else whole("--clusters", clusters)}
    if columns is not None:
        flags["select"] = names(columns)
    flags["columns"] = described(log, periodic, bounded, integer, category)
    base = configs.PRESETS[preset.value]
    tell = say if distributed.rank() == 0 else nobody
    if resume and out is not None and not out.exists():
        tell(f"{out}: there is nothing to resume yet; it begins now")
        resume = False
    if resume:
        out, base, data = sources.begun(out, data)
    layers = [base, configs.read(config) if config else {}, *map(configs.assignment, settings or []), flags]
    merged = configs.from_dict(configs.merge(*layers))
    source, table = sources.load(data or SHIPPED, merged)
    path = out or sources.free_folder(source)
    run = run_stages(table, merged, path, source, resume=resume)
    took = sum(run.seconds.values())
    for note in sources.notes(table, merged):
        tell(note)
    tell(f"clusters: {run.facts['clusters']}")
    tell(f"run: {run.path} ({took:.0f} s on {run.facts['rows']} rows); next: scgan export {run.path}")


def whole(option: str, text: str) -> int:
    """Return a whole number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{option} {text!r}: a whole number from 1 on, or auto, is needed")
    return int(text)


def names(text: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def described(
    log: list[str] | None,
    periodic: list[str] | None,
    bounded: list[str] | None,
    integer: list[str] | None,
    category: list[str] | None,
) -> dict[str, dict[str, Any]]:
    """Return the column settings that the kind options stand for."""
    found: dict[str, dict[str, Any]] = {}
    for kind, lists in (("log", log), ("integer", integer), ("category", category)):
        for name in (name for text in lists or [] for name in names(text)):
            found[name] = {"kind": kind}
    for option, lists in (("--periodic", periodic), ("--bounded", bounded)):
        for item in (item for text in lists or [] for item in names(text)):
            name, _, value = item.rpartition("=")
            found[name] = domain(option, name, value)
    return found


def domain(option: str, name: str, value: str) -> dict[str, Any]:
    """Return the settings of one `phi=360` or `a=0:1`."""
    try:
        if option == "--periodic" and name:
            return {"kind": "periodic", "period": float(value)}
        low, _, high = value.partition(":")
        ends = {key: float(end) for key, end in (("low", low), ("high", high)) if end}
        if name and ends:
            return {"kind": "bounded", **ends}
    except ValueError:
        pass
    example = "phi=360" if option == "--periodic" else "a=0:1, a=0: or a=:1"
    raise UsageError(f"{option} {name}={value}: write it as {example}")


@app.command()
def export(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder; default: newest in runs/.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder; default: exported/NAME.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY.pem", help="Ed25519 private key; writes bundle.sig."),
    ] = None,
    triton: Annotated[
        Path | None,
        typer.Option("--triton", metavar="DIR", help="Write a Triton model repository, too."),
    ] = None,
) -> None:
    """Export a finished run to a bundle of ONNX graphs."""
    from scgan_infer.bundle import load
    from scgan_train import export as write
    from scgan_train import sources

    path = run or sources.newest_run()
    target = out or Path("exported") / path.resolve().name
    key = None
    if sign is not None:
        from scgan_infer import signing

        key = signing.private_key(sign)
    write(path, target)
    for note in load(target).manifest.metrics.get("notes", []):
        say(f"note: {note}")
    if key is not None:
        signing.sign(target, key)
    if triton is not None:
        from scgan_train.triton import repository

        say(f"Triton model repository: {repository(target, triton)}")
    say(f"bundle: {target}; next: scgan sample --model {target} --n 10000 --out samples.npy")


@app.command()
def sample(
    model: Model = None,
    n: Annotated[int, typer.Option("--n", "-n", min=0, help="Number of rows.")] = 10_000,
    out: Out = "-",
    seed: Seed = 0,
    start: Start = 0,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/M", help="Part I (from 1) of the n rows cut in M.")
    ] = None,
    cluster: Annotated[
        int | None, typer.Option("--cluster", metavar="I", help="Draw from this cluster alone.")
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="NAME=VALUE", help="Draw rows of this category alone.")
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="Factor on the noise; below 1, rows crowd together.")
    ] = 1.0,
    device: OnDevice = Device.auto,
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
    rows_per_file: RowsPerFile = None,
    resume: Resume = False,
) -> None:
    """Sample rows from a bundle: row i depends on the bundle, the seed and i alone."""
    from scgan_infer.engines import Job

    loaded = opened(model, device, threads)
    if cluster is not None and where is not None:
        raise UsageError("--cluster and --where name clusters both; give one of them")
    if where is not None:
        from scgan_infer.where import clusters_where

        chosen: int | tuple[int, ...] | None = clusters_where(loaded, where)
    else:
        chosen = cluster
    first, count = part(n, shard)
    job = Job(
        loaded,
        n=count,
        seed=seed,
        start=start + first,
        cluster=chosen,
        temperature=temperature,
        scheduler=scheduler,
    )
    written(job, engine, out, loaded.columns, count, rows_per_file, resume)


@app.command()
def reconstruct(
    data: Data,
    model: Model = None,
    out: Out = "-",
    noise: Annotated[
        Noise, typer.Option("--noise", help="Decoder noise: fixed at zero, or random by --seed.")
    ] = Noise.fixed,
    seed: Seed = 0,
    start: Start = 0,
    device: OnDevice = Device.auto,
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
) -> None:
    """Encode and decode each row of DATA."""
    from scgan_infer.engines import Job

    loaded = opened(model, device, threads)
    with source(data) as path:
        job = Job(
            loaded,
            op="reconstruct",
            source=path,
            noise=noise is Noise.random,
            seed=seed,
            start=start,
            scheduler=scheduler,
        )
        written(job, engine, out, loaded.columns)


@app.command()
def encode(
    data: Data,
    model: Model = None,
    out: Out = "-",
    device: OnDevice = Device.auto,
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
) -> None:
    """Write the latent and the cluster of each row of DATA."""
    from scgan_infer.columns import Column
    from scgan_infer.engines import Job

    loaded = opened(model, device, threads)
    latents = tuple(Column(f"latent_{j}") for j in range(loaded.manifest.sizes["e"]))
    with source(data) as path:
        job = Job(loaded, op="encode", source=path, scheduler=scheduler)
        written(job, engine, out, (*latents, Column("cluster", "integer")))


def opened(model: Path | None, device: Device, threads: int | None) -> Loaded:
    """Return the bundle at work, and say on stderr which device `auto` took if it was not the CPU."""
    from scgan_infer.runtime import load

    loaded = load(find_bundle(model), device.value, threads)
    if device is Device.auto and loaded.device != "cpu":
        say(f"device: {loaded.device}")
    return loaded


def part(n: int, shard: str | None) -> tuple[int, int]:
    """Return the first row and the number of rows of a shard I/M of n rows."""
    if shard is None:
        return 0, n
    index, _, total = shard.partition("/")
    if not (index.isdigit() and total.isdigit() and 1 <= int(index) <= int(total)):
        raise UsageError(f"--shard {shard!r}: write it as I/M with I from 1 to M, for example 1/8")
    i, m = int(index), int(total)
    low, high = n * (i - 1) // m, n * i // m
    return low, high - low


@contextmanager
def source(data: str) -> Iterator[Path]:
    """Yield the file of DATA; a built-in distribution becomes a file of 10,000 fresh rows for the while."""
    from scgan_train.datasets import DATASETS, table

    if data not in DATASETS:
        yield Path(data)
        return
    from tempfile import TemporaryDirectory

    from scgan_infer.formats import open_writer

    rows = table(data, 10_000, 1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{data}.csv"
        with open_writer(path, rows.columns, len(rows)) as writer:
            writer.write(rows.values)
        yield path


def written(
    job: Job,
    engine: str,
    out: str,
    columns: Sequence[Column],
    rows: int | None = None,
    rows_per_file: int | None = None,
    resume: bool = False,
) -> None:
    """Let the engine do the job and write what comes."""
    from scgan_infer.engines import ENGINES
    from scgan_infer.formats import open_shards, open_writer

    if engine not in ENGINES:
        raise UsageError(f"--engine {engine!r} is unknown; choose from {', '.join(ENGINES)}")
    identity = f"{job.op} {job.model.bundle.sha256} {job.seed} {job.start} {job.cluster} {job.temperature}"
    if rows_per_file is not None:
        writer = open_shards(out, columns, rows, rows_per_file, start=job.start, resume=resume, job=identity)
    else:
        writer = open_writer(out, columns, rows, resume=resume, job=identity)
    with writer:
        count = writer.done
        if count:
            say(f"going on after {count} rows")
        for piece in ENGINES[engine](replace(job, start=job.start + count, n=job.n - count)):
            writer.write(piece)
            count += len(piece)
    told(out, count)


def told(out: str, n: int) -> None:
    """Say what was written."""
    if out != "-":
        say(f"{n} rows: {out}")


@app.command()
def info(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Default: newest in exported/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a bundle's columns, sizes, graphs, provenance and figures."""
    import json

    from scgan_infer.bundle import load

    manifest = load(find_bundle(bundle)).manifest
    if as_json:
        typer.echo(manifest.to_json().decode(), nl=False)
        return
    sizes = manifest.sizes
    typer.echo(f"{manifest.name}: bundle of format {manifest.format}, opset {manifest.opset}")
    typer.echo(
        f"latents {manifest.latents}{f' ({manifest.mapper})' if manifest.mapper else ''}; d {sizes['d']} columns, "
        f"e {sizes['e']} latents, m {sizes['m']} and q {sizes['q']} noise inputs, K {sizes['K']} clusters"
    )
    for column in manifest.columns:
        extra = {key: value for key, value in column.to_dict().items() if key not in ("name", "kind")}
        typer.echo(f"  {column.name}: {column.kind} {json.dumps(extra) if extra else ''}".rstrip())
    for name, file in sorted(manifest.files.items()):
        typer.echo(f"  {name:<16} {file['bytes']:>9} bytes  sha256 {file['sha256'][:16]}")
    for title, entries in (("provenance", manifest.provenance), ("metrics", manifest.metrics)):
        shown = {key: value for key, value in entries.items() if not isinstance(value, dict)}
        typer.echo(f"{title}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.pem", help="The maker's Ed25519 key; checks bundle.sig."),
    ] = None,
) -> None:
    """Check a bundle: checksums, graph rules, stored rows computed again, signature."""
    from scgan_infer.verify import verify as check

    verdict = check(bundle, key)
    replayed = f"{verdict.vectors} stored rows replayed" if verdict.vectors else "no stored rows to replay"
    typer.echo(
        f"{bundle}: good; {len(verdict.bundle.manifest.files)} checksums, {len(verdict.bundle.graphs)} graphs, "
        f"{replayed}, largest difference {verdict.worst:g} of the spread; "
        + ("signature of this key" if verdict.signed else "signature not asked for (--key)")
    )


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them.")] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of rows.")] = 10_000,
    out: Out = "-",
    seed: Seed = 0,
) -> None:
    """List the built-in distributions, or write rows of one."""
    from scgan_train.datasets import DATASETS, table

    if name is None:
        for known in DATASETS:
            typer.echo(known)
        return
    from scgan_infer.formats import open_writer

    rows = table(name, n, seed)
    with open_writer(out, rows.columns, n) as writer:
        writer.write(rows.values)
    told(out, n)


class Terminated(KeyboardInterrupt):
    """The system asks to end (SIGTERM)."""


@app.command()
def bench(
    model: Model = None, threads: Threads = None, device: OnDevice = Device.auto, as_json: AsJson = False
) -> None:
    """Measure rows per second on this machine, stage by stage."""
    import json
    from dataclasses import asdict

    from scgan_infer.bench import rates

    measured = rates(opened(model, device, threads))
    if as_json:
        typer.echo(json.dumps({**asdict(measured), "share": measured.share}))
        return
    typer.echo(f"{measured.threads} threads, {measured.device}; million rows per second")
    for stage in ("noise", "mapper", "decoder", "whole", "write"):
        typer.echo(f"{stage:<8} {getattr(measured, stage) / 1e6:8.2f}")
    typer.echo(f"whole / decoder: {measured.share:.0%}")


@app.command()
def doctor() -> None:
    """List runtimes, providers, clashes and extras, and what to install."""
    from scgan_infer.doctor import report

    for line in report():
        typer.echo(line)


HeldOut = Annotated[
    str, typer.Argument(metavar="DATA", help="Rows not trained on: a built-in distribution or a file.")
]
Samples = Annotated[
    Path | None,
    typer.Option("--samples", metavar="FILE", help="File of generated rows, in place of a model's."),
]
Compared = Annotated[int, typer.Option("--n", "-n", min=10, help="Most generated rows to compare at a time.")]


def subject(
    data: str, model: Path | None, samples: Path | None, train: Path | None, n: int, seed: int
) -> Subject:
    """Return what is judged: the rows of --samples, else rows of a bundle, beside those of DATA."""
    from scgan_infer import evaluation
    from scgan_infer.runtime import load

    loaded = load(find_bundle(model)) if model is not None or samples is None else None
    real = judging(data, loaded, n, seed)
    trained = None if train is None else evaluation.training_rows(train, real.columns)
    if samples is not None:
        return evaluation.from_file(real, samples, n, loaded, trained)
    assert loaded is not None
    return evaluation.from_model(real, loaded, n, seed, trained)


def judging(data: str, model: Loaded | None, n: int, seed: int) -> Table:
    """Return rows to judge n generated ones by; of a built-in distribution, rows that no training has seen."""
    from scgan_infer.evaluation import heldout
    from scgan_train.datasets import DATASETS, fresh

    if data in DATASETS:
        return fresh(data, 2 * n, seed)
    if not Path(data).suffix and not Path(data).exists():
        raise UsageError(f"{data!r} is neither a file nor a built-in distribution: {', '.join(DATASETS)}")
    return heldout(Path(data), None if model is None else model.columns, n)


@app.command()
def evaluate(
    data: HeldOut,
    model: Model = None,
    samples: Samples = None,
    train: Annotated[
        Path | None,
        typer.Option("--train", metavar="FILE", help="Rows trained on; measures copies of them."),
    ] = None,
    n: Compared = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page with pictures.")
    ] = None,
) -> None:
    """Measure how far generated rows are from DATA, each figure beside what real rows score."""
    import json

    from scgan_infer.evaluation import write
    from scgan_infer.metrics import table_text

    judged = subject(data, model, samples, train, n, seed)
    figures = judged.figures(seed)
    origin = samples if judged.model is None or samples is not None else judged.model.bundle.path
    facts = {"data": data, "generated": str(origin), "seed": str(seed)}
    if train is not None:
        facts["train"] = str(train)
        if judged.seen() > 0.5:
            say(
                f"note: {judged.seen():.0%} of the rows of {data} are in {train} too; give rows not trained on"
            )
    if report is not None:
        write(report, judged.page(figures, f"{origin} against {data}", facts))
        say(f"report: {report}")
    typer.echo(json.dumps({**facts, **figures.to_dict()}, indent=1) if as_json else table_text(figures))


plot = typer.Typer(
    help="Pictures, as PNG or PDF: of samples, clusters, latents, a training, the decoder's noise."
)
app.add_typer(plot, name="plot")

Picture = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Picture: .png or .pdf.")]


@plot.command("samples")
def plot_samples(
    data: Data,
    model: Model = None,
    samples: Samples = None,
    n: Compared = 10_000,
    seed: Seed = 0,
    out: Picture = Path("samples.png"),
) -> None:
    """Draw rows of DATA beside as many generated rows."""
    from scgan_infer.plots import data_and_samples

    shown = subject(data, model, samples, None, n, seed)
    drawn(data_and_samples(shown.real.values[:n], shown.samples[:n], shown.real.columns), out)


@plot.command("clusters")
def plot_clusters(
    data: Data, model: Model = None, seed: Seed = 0, out: Picture = Path("clusters.png")
) -> None:
    """Draw the latents of DATA, coloured by cluster."""
    from scgan_infer.plots import latent_clusters

    loaded = opened(model, Device.cpu, None)
    drawn(latent_clusters(*loaded.encode(judging(data, loaded, 10_000, seed).values)), out)


@plot.command("latents")
def plot_latents(
    data: Data,
    models: Annotated[
        list[Path],
        typer.Option("--model", "-m", metavar="BUNDLE", help="Bundle. Repeatable: of one encoder."),
    ],
    seed: Seed = 0,
    out: Picture = Path("latents.png"),
) -> None:
    """Draw the latents of DATA beside those that each model generates from."""
    from scgan_infer.evaluation import latent_picture
    from scgan_infer.runtime import load

    loaded = [load(model) for model in models]
    drawn(latent_picture(judging(data, loaded[0], 10_000, seed).values, loaded), out)


@plot.command("curves")
def plot_curves(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder; default: newest in runs/.")
    ] = None,
    out: Picture = Path("curves.png"),
) -> None:
    """Draw the losses of a training."""
    from scgan_infer.plots import training_curves

    found = sorted(Path("runs").glob("*/history.jsonl"), key=lambda path: path.stat().st_mtime)
    if run is None and not found:
        raise UsageError("no run in runs/; name one, or make one with `scgan train`")
    drawn(training_curves(found[-1] if run is None else run / "history.jsonl"), out)


@plot.command("noise")
def plot_noise(model: Model = None, seed: Seed = 0, out: Picture = Path("noise.png")) -> None:
    """Draw what each dimension of the decoder's noise does to rows."""
    from scgan_infer.evaluation import noise_picture

    drawn(noise_picture(opened(model, Device.cpu, None), seed), out)


def drawn(picture: Figure, out: Path) -> None:
    """Write a picture and say so."""
    from scgan_infer.plots import save

    save(picture, out)
    say(f"picture: {out}")


@app.command()
def reproduce(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each cell.")] = 1,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")] = Path(
        "reproduced"
    ),
    preset: Annotated[Preset, typer.Option("--preset", help="Speed or quality.")] = Preset.standard,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes at a time; default: cores.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Make the paper's Table 1 and Figures 2 and 3, with its own maps and the default ones."""
    from scgan_train.reproduce import Plan
    from scgan_train.reproduce import reproduce as run_plan

    run_plan(Plan(out, seeds, preset.value), jobs=jobs, resume=resume)
    typer.echo((out / "table.md").read_text("utf-8"), nl=False)
    say(f"table and figures: {out}")


def main() -> NoReturn:
    """Run the command line; every error becomes one line and its exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        sys.excepthook = unexpected
    signal.signal(signal.SIGTERM, terminate)
    try:
        code = run(arguments or ["--help"])
    except (
        ScganError,
        BadCommandLine,
        typer.Abort,
        KeyboardInterrupt,
        OSError,
        ModuleNotFoundError,
    ) as error:
        if debug:
            traceback.print_exception(error)
        code = failed(error)
    except RuntimeError as error:
        stopped = interruption(error)
        if stopped is None:
            raise
        code = failed(stopped)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return the exit code that it asks for."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("scgan", arguments) as context:
            command.invoke(context)
        code = 0
    except typer.Exit as stop:
        code = stop.exit_code
    sys.stdout.flush()
    return code


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does: what is begun is cleaned up, or kept for --resume."""
    raise Terminated


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the signal that an error comes from: Python's locks complain when one falls between their steps."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def failed(error: BaseException) -> int:
    """Say in one line what was wrong and return the exit code."""
    if isinstance(error, OSError):
        if error.filename is None:  # stdout takes no more; without this, Python would try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        message, code = f"{error.filename or 'output'}: {error.strerror or error}", 7
    elif isinstance(error, ModuleNotFoundError):
        message, code = f"{error.name} is not installed; pip install 'scgan[train]'", 2
    elif isinstance(error, BadCommandLine):
        said, value = error.format_message(), given(error)  # type: ignore[attr-defined]
        message, code = f"{said}{'' if value[6:] in said else value} (see --help)", 2
    elif isinstance(error, ScganError):
        message, code = str(error), error.exit_code
    elif isinstance(error, Terminated):
        message, code = "terminated", 143
    else:
        message, code = "interrupted", 130
    say("scgan: " + " ".join(message.split()))
    return code


def given(error: Exception) -> str:
    """Return what the command line gave for the option that an error is about."""
    for option in getattr(getattr(error, "param", None), "opts", []):
        for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
            name, equals, value = word.partition("=")
            if name == option:
                return f", not {value if equals else following!r}"
    return ""


def unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say in one line that this is a fault of scgan; Python then ends with exit code 1."""
    what = " ".join(f"{kind.__name__}: {error}".split())
    say(f"scgan: unexpected {what[:300]}; run again with --debug and report it")


if __name__ == "__main__":
    main()

"""The command line: each command parses, makes one call and prints; messages go to stderr, data to stdout or --out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from scgan_train.app import commands, exits
from scgan_train.app.exits import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BadCommandLine: type[Exception] = typer.BadParameter.__mro__[1]

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


Data = Annotated[
    str, typer.Argument(metavar="DATA", help="A built-in distribution or a file of rows.")
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        "-m",
        metavar="BUNDLE",
        envvar="SCGAN_MODEL",
        help="Bundle; default: newest in exported/.",
    ),
]
Out = Annotated[
    str,
    typer.Option(
        "--out", "-o", metavar="FILE", help="File to write; its suffix is the format; - is CSV."
    ),
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
        "--scheduler",
        metavar="ADDRESS",
        envvar="SCGAN_SCHEDULER",
        help="Dask scheduler; default: one here.",
    ),
]
RowsPerFile = Annotated[
    int | None,
    typer.Option(
        "--rows-per-file",
        min=1,
        metavar="M",
        help="Write --out DIR/ in files of M rows, with hashes.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted --out.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, envvar="SCGAN_THREADS", help="Worker threads; default: cores."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
        typer.Option(
            "--config", "-c", metavar="FILE", envvar="SCGAN_CONFIG", help="TOML file of settings."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One setting, e.g. decoder.width=128. Repeatable."
        ),
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
        str | None,
        typer.Option("--mapper", envvar="SCGAN_MAPPER", help="Kind of map; default: auto."),
    ] = None,
    clusters: Annotated[
        str | None,
        typer.Option(
            "--clusters", metavar="K|auto", envvar="SCGAN_CLUSTERS", help="Number of clusters."
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="a,b", help="Use these columns only.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", metavar="a,b", help="Positive columns, seen as logarithms."),
    ] = None,
    periodic: Annotated[
        list[str] | None,
        typer.Option(
            "--periodic", metavar="phi=360", help="Columns that wrap around, with their period."
        ),
    ] = None,
    bounded: Annotated[
        list[str] | None,
        typer.Option(
            "--bounded", metavar="a=0:1", help="Columns with walls, either may be left out."
        ),
    ] = None,
    integer: Annotated[
        list[str] | None, typer.Option("--integer", metavar="a,b", help="Columns of whole numbers.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", metavar="a,b", help="Columns of names.")
    ] = None,
    device: Annotated[
        Device | None,
        typer.Option("--device", envvar="SCGAN_DEVICE", help="What trains; default: auto."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish the run in --out.")] = False,
) -> None:
    """Train on a built-in distribution or on your own rows."""
    from scgan_train import config as configs
    from scgan_train.app import options
    from scgan_train.training import distributed, sources
    from scgan_train.training.stages import train as run_stages

    kinds = {
        "log": log,
        "periodic": periodic,
        "bounded": bounded,
        "integer": integer,
        "category": category,
    }
    plain = {"seed": seed, "latents": latents and latents.value, "device": device and device.value}
    flags = options.flags(
        plain=plain, mapper=mapper, clusters=clusters, select=columns, kinds=kinds
    )
    base = configs.PRESETS[preset.value]
    tell = say if distributed.rank() == 0 else nobody
    if resume and out is not None and not out.exists():
        tell(f"{out}: there is nothing to resume yet; it begins now")
        resume = False
    if resume:
        out, base, data = sources.begun(out, data)
    settings = options.layered(base, config, assignments or [], flags)
    source, table = sources.load(data or sources.DEFAULT, settings)
    path = out or sources.free_folder(source)
    run = run_stages(table, settings, path, source, resume=resume)
    took = sum(run.seconds.values())
    for note in sources.notes(table, settings):
        tell(note)
    tell(f"clusters: {run.facts['clusters']}")
    tell(
        f"run: {run.path} ({took:.0f} s on {run.facts['rows']} rows); next: scgan export {run.path}"
    )


def nobody(message: str) -> None:
    """Say nothing: another process says it."""


@app.command()
def export(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder; default: newest in runs/.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="BUNDLE", help="Folder; default: exported/NAME."),
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
    from scgan_train.training import sources

    path = run or sources.newest_run()
    target = out or Path("exported") / path.resolve().name
    key = None
    if sign is not None:
        from scgan_infer.bundle import signing

        key = signing.private_key(sign)
    write(path, target)
    for note in load(target).manifest.metrics.get("notes", []):
        say(f"note: {note}")
    if key is not None:
        signing.sign(target, key)
    if triton is not None:
        from scgan_train.exporting.triton import repository

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
        str | None,
        typer.Option("--shard", metavar="I/M", help="Part I (from 1) of the n rows cut in M."),
    ] = None,
    cluster: Annotated[
        int | None, typer.Option("--cluster", metavar="I", help="Draw from this cluster alone.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="NAME=VALUE", help="Draw rows of this category alone."),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=0, help="Factor on the noise; below 1, rows crowd together."
        ),
    ] = 1.0,
    device: OnDevice = Device.auto,
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
    rows_per_file: RowsPerFile = None,
    resume: Resume = False,
) -> None:
    """Sample rows from a bundle.

    Row i depends on the bundle, the seed and i alone.
    """
    from scgan_infer.sampling.draw import Draw
    from scgan_infer.sampling.engines import Job

    loaded = commands.opened(model, device.value, threads)
    first, count = commands.part(n, shard)
    clusters = commands.chosen_clusters(loaded, cluster, where)
    draw = Draw(count, seed, start + first, clusters, temperature)
    job = Job(loaded, draw=draw, scheduler=scheduler)
    commands.compute(job, engine, out, loaded.columns, count, rows_per_file, resume)


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
    from scgan_infer.sampling.draw import Draw
    from scgan_infer.sampling.engines import Job
    from scgan_train.datasets import as_file

    loaded = commands.opened(model, device.value, threads)
    with as_file(data) as path:
        draw = Draw(0, seed, start) if noise is Noise.random else None
        job = Job(loaded, "reconstruct", draw, path, scheduler)
        commands.compute(job, engine, out, loaded.columns)


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
    """Write latent and cluster of each row of DATA."""
    from scgan_infer.columns import Column
    from scgan_infer.sampling.engines import Job
    from scgan_train.datasets import as_file

    loaded = commands.opened(model, device.value, threads)
    latents = tuple(Column(f"latent_{j}") for j in range(loaded.manifest.sizes["e"]))
    with as_file(data) as path:
        job = Job(loaded, op="encode", source=path, scheduler=scheduler)
        commands.compute(job, engine, out, (*latents, Column("cluster", "integer")))


@app.command()
def info(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Default: newest in exported/.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds and where it is from."""
    from scgan_infer.bundle import load

    manifest = load(commands.find_bundle(bundle)).manifest
    if as_json:
        typer.echo(manifest.to_json().decode(), nl=False)
        return
    for line in commands.described(manifest):
        typer.echo(line)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")],
    key: Annotated[
        Path | None,
        typer.Option(
            "--key", metavar="PUBLIC.pem", help="The maker's Ed25519 key; checks bundle.sig."
        ),
    ] = None,
) -> None:
    """Check a bundle and compute its stored rows again.

    Checksums, graph rules, stored rows and, with --key, the signature.
    """
    from scgan_infer.sampling.verify import verify as check

    verdict = check(bundle, key)
    replayed = (
        f"{verdict.vectors} stored rows replayed" if verdict.vectors else "no stored rows to replay"
    )
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
    """List built-in distributions, or write rows of one."""
    from scgan_train.datasets import DATASETS, table

    if name is None:
        for known in DATASETS:
            typer.echo(known)
        return
    commands.write_table(table(name, n, seed), out)


@app.command()
def bench(
    model: Model = None,
    threads: Threads = None,
    device: OnDevice = Device.auto,
    as_json: AsJson = False,
) -> None:
    """Measure rows per second, stage by stage."""
    import json
    from dataclasses import asdict

    from scgan_infer.sampling.bench import rates

    measured = rates(commands.opened(model, device.value, threads))
    if as_json:
        typer.echo(json.dumps({**asdict(measured), "share": measured.share}))
        return
    typer.echo(f"{measured.threads} threads, {measured.device}; million rows per second")
    for stage in ("noise", "mapper", "decoder", "whole", "write"):
        typer.echo(f"{stage:<8} {getattr(measured, stage) / 1e6:8.2f}")
    typer.echo(f"whole / decoder: {measured.share:.0%}")


@app.command()
def doctor() -> None:
    """List what is installed here and what to install."""
    from scgan_train.app.doctor import report

    for line in report():
        typer.echo(line)


HeldOut = Annotated[
    str,
    typer.Argument(metavar="DATA", help="Rows not trained on: a built-in distribution or a file."),
]
Samples = Annotated[
    Path | None,
    typer.Option(
        "--samples", metavar="FILE", help="File of generated rows, in place of a model's."
    ),
]
Compared = Annotated[
    int, typer.Option("--n", "-n", min=10, help="Most generated rows to compare at a time.")
]


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
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Write a page with pictures."),
    ] = None,
) -> None:
    """Measure how far generated rows are from DATA.

    Each figure stands beside its floor: what other real rows score in place of the generated ones.
    """
    import json

    from scgan_infer.files import write_bytes
    from scgan_infer.judging.figures import table_text
    from scgan_train.datasets import subject

    judged = subject(data, commands.judged_model(model, samples), samples, train, n, seed)
    figures = judged.figures(seed)
    facts = {"data": data, "generated": judged.origin, "seed": str(seed)}
    if train is not None:
        facts["train"] = str(train)
    seen = judged.seen()
    if seen > 0.5:
        say(f"note: {seen:.0%} of the rows of {data} were trained on; give rows not trained on")
    if report is not None:
        page = judged.page(figures, f"{judged.origin} against {data}", facts)
        write_bytes(report, page.encode())
        say(f"report: {report}")
    typer.echo(
        json.dumps({**facts, **figures.to_dict()}, indent=1) if as_json else table_text(figures)
    )


plot = typer.Typer(
    help="Draw samples, clusters, latents, losses or noise.\n\nPictures are PNG or PDF, by the suffix of --out."
)
app.add_typer(plot, name="plot")

Picture = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="Picture: .png or .pdf.")
]


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
    from scgan_infer.judging.plots import data_and_samples
    from scgan_train.datasets import subject

    shown = subject(data, commands.judged_model(model, samples), samples, None, n, seed)
    drawn(data_and_samples(shown.real.values[:n], shown.samples[:n], shown.real.columns), out)


@plot.command("clusters")
def plot_clusters(
    data: Data, model: Model = None, seed: Seed = 0, out: Picture = Path("clusters.png")
) -> None:
    """Draw the latents of DATA, coloured by cluster."""
    from scgan_infer.judging.plots import latent_clusters
    from scgan_train.datasets import judges

    loaded = commands.opened(model, "cpu", None)
    drawn(latent_clusters(*loaded.encode(judges(data, loaded.columns, 10_000, seed).values)), out)


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
    from scgan_infer.judging.evaluation import latent_picture
    from scgan_infer.sampling.model import load
    from scgan_train.datasets import judges

    loaded = [load(model) for model in models]
    drawn(latent_picture(judges(data, loaded[0].columns, 10_000, seed).values, loaded), out)


@plot.command("curves")
def plot_curves(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Run folder; default: newest in runs/.")
    ] = None,
    out: Picture = Path("curves.png"),
) -> None:
    """Draw the losses of a training."""
    from scgan_infer.judging.plots import training_curves

    drawn(training_curves(commands.history(run)), out)


@plot.command("noise")
def plot_noise(model: Model = None, seed: Seed = 0, out: Picture = Path("noise.png")) -> None:
    """Draw what each dimension of the decoder's noise does to rows."""
    from scgan_infer.judging.evaluation import noise_picture

    drawn(noise_picture(commands.opened(model, "cpu", None), seed), out)


def drawn(picture: Figure, out: Path) -> None:
    """Write a picture and say so."""
    from scgan_infer.judging.plots import save

    save(picture, out)
    say(f"picture: {out}")


@app.command()
def reproduce(
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each cell.")] = 1,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.")
    ] = Path("reproduced"),
    preset: Annotated[Preset, typer.Option("--preset", help="Speed or quality.")] = Preset.standard,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes at a time; default: cores.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Make the paper's Table 1 and Figures 2 and 3.

    With its own maps and the default ones.
    """
    from scgan_train.reproduce import Plan
    from scgan_train.reproduce import reproduce as run_plan

    run_plan(Plan(out, seeds, preset.value), jobs=jobs, resume=resume)
    typer.echo((out / "table.md").read_text("utf-8"), nl=False)
    say(f"table and figures: {out}")


def main() -> NoReturn:
    """Run the command line; every error becomes one line and its exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    sys.exit(exits.ended(lambda: run(arguments or ["--help"]), BadCommandLine, typer.Abort, debug))


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


if __name__ == "__main__":
    main()

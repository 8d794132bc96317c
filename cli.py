"""The command line: each command parses, makes one call and prints; messages go to stderr, data to stdout or --out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer

from scgan_infer.errors import ScganError, UsageError

SHIPPED = "eight_gaussians"

app = typer.Typer(
    name="scgan",
    help="Generate data that lives on disconnected pieces: train in PyTorch, export to ONNX, sample anywhere.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Preset(str, Enum):
    """Sizes of a training."""

    quick = "quick"
    standard = "standard"


class Latents(str, Enum):
    """Where latents for generation come from."""

    gaussian = "gaussian"
    centers = "centers"
    mapper = "mapper"
    real = "real"


class Device(str, Enum):
    """What computes."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Data = Annotated[str, typer.Argument(metavar="DATA", help="A built-in distribution or a file of rows.")]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model", "-m", metavar="BUNDLE", envvar="SCGAN_MODEL", help="Bundle; default: newest in exported/."
    ),
]
Out = Annotated[
    str, typer.Option("--out", "-o", metavar="FILE", help="File to write; its suffix is the format; - is CSV.")
]
Seed = Annotated[int, typer.Option("--seed", "-s", min=0, envvar="SCGAN_SEED", help="Random seed.")]
OnDevice = Annotated[Device, typer.Option("--device", envvar="SCGAN_DEVICE", help="What computes.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, envvar="SCGAN_THREADS", help="Worker threads; default: cores.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(message: str) -> None:
    """Write one line to stderr."""
    typer.echo(message, err=True)


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
        Path | None, typer.Option("--out", "-o", metavar="RUN", help="Run folder; default: a new one in runs/.")
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
    from scgan_train import sources
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
    if resume:
        out, base, data = sources.begun(out, data)
    layers = [base, configs.read(config) if config else {}, *map(configs.assignment, settings or []), flags]
    merged = configs.from_dict(configs.merge(*layers))
    source, table = sources.load(data or SHIPPED, merged)
    path = out or sources.free_folder(source)
    run = run_stages(table, merged, path, source, resume=resume)
    took = sum(run.seconds.values())
    say(f"clusters: {run.facts['clusters']}")
    say(f"run: {path} ({took:.0f} s on {run.facts['rows']} rows); next: scgan export {path}")


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
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder; default: newest in runs/.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="BUNDLE", help="Folder; default: exported/NAME.")
    ] = None,
) -> None:
    """Export a finished run to a bundle of ONNX graphs."""
    from scgan_train import export as write
    from scgan_train import sources

    path = run or sources.newest_run()
    made = write(path, out or Path("exported") / path.resolve().name)
    say(f"bundle: {made}; next: scgan sample --model {made} --n 10000 --out samples.npy")


@app.command()
def sample(
    model: Model = None,
    n: Annotated[int, typer.Option("--n", "-n", min=0, help="Number of rows.")] = 10_000,
    out: Out = "-",
    seed: Seed = 0,
    start: Annotated[int, typer.Option("--start", min=0, help="Index of the first row.")] = 0,
    cluster: Annotated[
        int | None, typer.Option("--cluster", metavar="I", help="Draw from this cluster alone.")
    ] = None,
    device: OnDevice = Device.auto,
    threads: Threads = None,
) -> None:
    """Sample rows from a bundle: row i depends on the bundle, the seed and i alone."""
    from scgan_infer.formats import open_writer
    from scgan_infer.runtime import load

    loaded = load(find_bundle(model), device.value, threads)
    with open_writer(out, loaded.columns, n) as writer:
        for rows in loaded.blocks(n, seed, start, cluster=cluster):
            writer.write(rows)
    told(out, n)


@app.command()
def reconstruct(data: Data, model: Model = None, out: Out = "-", device: OnDevice = Device.auto) -> None:
    """Encode and decode each row of DATA, decoder noise fixed."""
    from scgan_infer.runtime import load

    loaded = load(find_bundle(model), device.value)
    mapped(data, out, loaded.columns, loaded.columns, loaded.reconstruct)


@app.command()
def encode(data: Data, model: Model = None, out: Out = "-", device: OnDevice = Device.auto) -> None:
    """Write the latent and the cluster of each row of DATA."""
    import numpy as np

    from scgan_infer.columns import Column
    from scgan_infer.runtime import load

    loaded = load(find_bundle(model), device.value)
    latents = tuple(Column(f"latent_{j}") for j in range(loaded.manifest.sizes["e"]))

    def latent_and_cluster(rows: Any) -> Any:
        latent, cluster = loaded.encode(rows)
        return np.column_stack([latent, cluster]).astype(np.float32)

    mapped(data, out, loaded.columns, (*latents, Column("cluster", "integer")), latent_and_cluster)


def mapped(data: str, out: str, takes: Any, gives: Any, function: Callable[[Any], Any]) -> None:
    """Write `function` of each piece of DATA's rows."""
    from scgan_infer.formats import iter_values, open_writer
    from scgan_train.datasets import DATASETS, table

    if data in DATASETS:
        pieces = iter([table(data, 10_000, 1).values])
    else:
        pieces = iter_values(data, takes)
    count = 0
    with open_writer(out, gives) as writer:
        for piece in pieces:
            writer.write(function(piece))
            count += len(piece)
    told(out, count)


def told(out: str, n: int) -> None:
    """Say what was written."""
    if out != "-":
        say(f"{n} rows: {out}")


@app.command()
def info(
    bundle: Annotated[Path | None, typer.Argument(metavar="BUNDLE", help="Default: newest in exported/.")] = None,
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


def main() -> NoReturn:
    """Run the command line; every error becomes one line and its exit code."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = app(arguments, standalone_mode=False)
    except (ScganError, click.ClickException, click.Abort, KeyboardInterrupt, BrokenPipeError) as error:
        if debug:
            raise
        sys.exit(failed(error))
    sys.exit(code if isinstance(code, int) else 0)


def failed(error: BaseException) -> int:
    """Say in one line what was wrong and return the exit code."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, click.ClickException):
        message, code = error.format_message(), 2
    elif isinstance(error, ScganError):
        message, code = str(error), error.exit_code
    else:
        message, code = "interrupted", 130
    say("scgan: " + " ".join(message.split()))
    return code


if __name__ == "__main__":
    main()

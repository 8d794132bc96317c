"""Commands except `plot`: parse, call the library, print data to stdout, the rest to stderr."""

# no annotations from __future__: typer would evaluate each of them four times

import copy
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

from scgan_infer.names import Device, Latents, Missing, Preset, Size
from scgan_train.app import actions
from scgan_train.app.actions import say, show
from scgan_train.watch import Watch

app = typer.Typer(
    help="Generate data on disconnected pieces: train in PyTorch, export to ONNX, sample anywhere.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def option(names: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    """Return an option with names and help."""
    return typer.Option(*names.split(), metavar=metavar, help=text, **more)


def variable(names: str, text: str, metavar: str | None = None, **more: Any) -> Any:
    """Return an option that is read from the environment, too: --seed from SCGAN_SEED."""
    name = names.split()[0].removeprefix("--").upper()
    return option(names, text, metavar, envvar=f"SCGAN_{name}", **more)


def argument(metavar: str, text: str) -> Any:
    """Return an argument with help."""
    return typer.Argument(metavar=metavar, help=text)


File = Path | None
Text = str | None
Texts = list[str] | None
Whole = int | None
Noise = Literal["fixed", "random"]


def only(name: str) -> typer.Typer:
    """Return the app with one command only, or the whole app: building takes 3 ms, or 16."""
    one = copy.copy(app)
    one.registered_groups = []
    commands = {getattr(info.callback, "__name__", ""): info for info in app.registered_commands}
    one.registered_commands = [commands[name]] if name in commands else []
    return one if one.registered_commands else app


Data = Annotated[str, argument("DATA", "A built-in distribution or a file of rows.")]
Model = Annotated[File, variable("--model -m", "Bundle; default: newest in exported/.", "BUNDLE")]
Out = Annotated[str, option("--out -o", "File, of the format of its suffix; - is CSV.", "FILE")]
Seed = Annotated[int, variable("--seed -s", "Random seed.", "S", min=0)]
OnDevice = Annotated[Device, variable("--device", "What computes.")]
Start = Annotated[int, option("--start", "Index of the first row.", "I", min=0)]
OnEngine = Annotated[str, variable("--engine", "Who computes: local or dask.", "NAME")]
Scheduler = Annotated[Text, variable("--scheduler", "Of Dask; default: one here.", "ADDRESS")]
Threads = Annotated[Whole, variable("--threads", "Worker threads; default: cores.", "T", min=1)]
AsJson = Annotated[bool, option("--json", "Print JSON.")]
Assignments = Annotated[
    Texts, option("--set", "A setting, e.g. mapper.width=64. Repeatable.", "KEY=VALUE")
]
Chosen = Annotated[Text, option("--columns", "Use these columns only.", "a,b")]
Header = Annotated[
    bool | None, option("--header/--no-header", "Whether the first line of text has names.")
]
Given = Annotated[Text, option("--given", "Columns that are inputs, never generated.", "a,b")]
Log = Annotated[Texts, option("--log", "Positive columns, seen as logarithms.", "a,b")]
Periodic = Annotated[Texts, option("--periodic", "Columns that wrap around.", "phi=360")]
Bounded = Annotated[Texts, option("--bounded", "Columns with one or two walls.", "a=0:1")]
Integer = Annotated[Texts, option("--integer", "Columns of whole numbers.", "a,b")]
Category = Annotated[Texts, option("--category", "Columns of names.", "a,b")]
Absent = Annotated[Missing | None, variable("--missing", "Missing cells: default keep, as data.")]
Force = Annotated[bool, option("--force", "Replace what has the name of --out.")]
OneRun = Annotated[File, argument("[RUN]", "Run folder; default: newest in runs/.")]


def version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from importlib.metadata import version as installed

        show(f"scgan {installed('scgan')}")
        raise typer.Exit


@app.callback()
def options(
    shown: Annotated[
        bool, option("--version", "Print the version.", callback=version, is_eager=True)
    ] = False,
    debug: Annotated[bool, option("--debug", "Show tracebacks.")] = False,
    quiet: Annotated[bool, option("--quiet -q", "Say only what goes wrong.")] = False,
    verbose: Annotated[bool, option("--verbose -v", "Say more of long work.")] = False,
) -> None:
    """Options of the whole program, which may stand anywhere; see `scgan_train.app.exits`."""


def settings_of(
    context: typer.Context, file: File, assignments: Texts, preset: Preset = "standard"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `layers` of a command's options."""
    from scgan_train.app.settings import OPTIONS, layers

    options = {name: context.params[name] for name in OPTIONS if name in context.params}
    sources = {name: context.get_parameter_source(name) for name in options}
    environment = [name for name in options if getattr(sources[name], "name", "") == "ENVIRONMENT"]
    return layers(preset, file, assignments or [], options, environment)


@app.command()
def train(
    context: typer.Context,
    data: Annotated[Text, argument("[DATA]", "A built-in distribution or a file.")] = None,
    out: Annotated[File, option("--out -o", "Folder; default: new in runs/.", "RUN")] = None,
    config: Annotated[File, variable("--config -c", "TOML file of settings.", "FILE")] = None,
    assignments: Assignments = None,
    preset: Annotated[
        Preset, variable("--preset", "Speed, quality, or the paper's method as published.")
    ] = "standard",
    seed: Annotated[Whole, variable("--seed -s", "Random seed.", "S", min=0)] = None,
    latents: Annotated[Latents | None, variable("--latents", "Default: mapper.")] = None,
    mapper: Annotated[Text, variable("--mapper", "Kind of map; default: auto.", "NAME")] = None,
    clusters: Annotated[Text, variable("--clusters", "Number of clusters.", "K|auto")] = None,
    columns: Chosen = None,
    given: Given = None,
    header: Header = None,
    log: Log = None,
    periodic: Periodic = None,
    bounded: Bounded = None,
    integer: Integer = None,
    category: Category = None,
    missing: Absent = None,
    device: Annotated[Device | None, variable("--device", "What trains; default: auto.")] = None,
    resume: Annotated[bool, option("--resume", "Finish the run in --out.")] = False,
    force: Force = False,
) -> None:
    """Train on a built-in distribution or on your own rows."""
    from scgan_train import train as run

    wanted, defaults = settings_of(context, config, assignments, preset)
    run(data, wanted, out, resume=resume, force=force, say=say, defaults=defaults)


@app.command()
def inspect(
    context: typer.Context,
    data: Annotated[str, argument("DATA", "A file, or a built-in distribution.")],
    out: Annotated[File, option("--out -o", "Write the columns as settings.", "FILE.toml")] = None,
    config: Annotated[File, variable("--config -c", "TOML file of settings.", "FILE")] = None,
    assignments: Assignments = None,
    columns: Chosen = None,
    given: Given = None,
    header: Header = None,
    log: Log = None,
    periodic: Periodic = None,
    bounded: Bounded = None,
    integer: Integer = None,
    category: Category = None,
    missing: Absent = None,
    force: Force = False,
) -> None:
    """Show what the columns of DATA are taken for.

    Nothing is trained; rows that training would refuse are refused.
    """
    from scgan_infer.files import write_bytes
    from scgan_train import inspect as look
    from scgan_train.config import merge

    actions.check_free(out, force)
    wanted, around = settings_of(context, config, assignments)
    inspection = look(data, merge(around, wanted))
    show(*map(actions.as_options, inspection.lines()))
    if out is not None:
        write_bytes(out, inspection.settings().encode())
        say(f"settings: {out}; next: scgan train {quote(data)} --config {quote(str(out))}")


@app.command()
def export(
    run: OneRun = None,
    out: Annotated[File, option("--out -o", "Default: exported/NAME.", "BUNDLE")] = None,
    sign: Annotated[File, option("--sign", "Private key; writes bundle.sig.", "KEY.pem")] = None,
    triton: Annotated[File, option("--triton", "Write a Triton repository, too.", "DIR")] = None,
    force: Force = False,
) -> None:
    """Export a finished run to a bundle of ONNX graphs."""
    from scgan_infer.bundle import load
    from scgan_train import export as write
    from scgan_train.runs import newest

    path = run or newest("decoder.safetensors")
    target = out or Path("exported") / path.resolve().name
    if not force:  # a bundle is replaced by the new one when that is complete
        actions.check_free(target, force, actions.ANY)
    key = None
    if sign is not None:
        from scgan_infer.bundle import signing

        key = signing.load_key(sign, "private")
    write(path, target)
    for note in load(target).manifest.metrics.get("notes", []):
        say(f"note: {note}")
    if key is not None:
        signing.sign(target, key)
    if triton is not None:
        from scgan_train.exporting.triton import repository

        say(f"Triton model repository: {repository(target, triton)}")
    say(f"bundle: {target}; next: {actions.sample_command(target)}")


@app.command()
def sample(
    model: Model = None,
    n: Annotated[Whole, option("--n -n", "Number of rows; default: 10000.", "N", min=0)] = None,
    out: Out = "-",
    seed: Seed = 0,
    start: Start = 0,
    given: Annotated[
        Text, option("--given", "Conditions: a file, a row each, or values.", "FILE|a=1,b=2")
    ] = None,
    each: Annotated[
        Whole, option("--each", "Rows for each condition of a file.", "M", min=1)
    ] = None,
    keep: Annotated[
        Text, option("--keep", "Other columns of that file to copy, behind the rest.", "a,b")
    ] = None,
    shard: Annotated[Text, option("--shard", "Part I of M of the rows, from 1.", "I/M")] = None,
    cluster: Annotated[Whole, option("--cluster", "Draw from this cluster alone.", "I")] = None,
    where: Annotated[
        Texts,
        option("--where", "Rows of this value; repeat for more columns or values.", "NAME=VALUE"),
    ] = None,
    temperature: Annotated[
        float,
        option("--temperature", "Factor on the noise; below 1, rows crowd together.", "T", min=0),
    ] = 1.0,
    device: OnDevice = "auto",
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
    rows_per_file: Annotated[
        Whole, option("--rows-per-file", "Write --out DIR/ in files of M rows.", "M", min=1)
    ] = None,
    resume: Annotated[bool, option("--resume", "Go on with an interrupted --out.")] = False,
    force: Force = False,
    spreadsheet: Annotated[
        bool,
        option("--spreadsheet", "Put ' before names that spreadsheets would compute, as =1+1."),
    ] = False,
) -> None:
    """Sample rows from a bundle.

    Row i depends on the bundle, the seed, i and, where columns are given, its condition alone.
    """
    from scgan_infer.sampling.draw import Draw
    from scgan_infer.sampling.engines import Job

    loaded = actions.load(model, device, threads)
    conditions, many, cells = actions.given(loaded, given, each, n, start, keep)
    first, count = actions.part(many, shard)
    asked = actions.conditions(loaded, cluster, where or [])
    draw = Draw(count, seed, start + first, temperature=temperature, **asked)
    job = Job(loaded, draw=draw, scheduler=scheduler, given=conditions)
    columns = loaded.manifest.whole
    if conditions is not None:
        from scgan_infer.rows.copies import all_copied

        columns = all_copied(columns, cells, conditions.each, out)
    columns = actions.inert(columns) if spreadsheet else columns
    if not resume:
        actions.check_free(out, force, actions.PARTS if rows_per_file else ())
    actions.compute(job, engine, out, columns, count, rows_per_file, resume)


@app.command()
def reconstruct(
    data: Data,
    model: Model = None,
    out: Out = "-",
    noise: Annotated[Noise, option("--noise", "Decoder noise: none, or by --seed.")] = "fixed",
    seed: Seed = 0,
    start: Start = 0,
    device: OnDevice = "auto",
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
    force: Force = False,
) -> None:
    """Encode and decode each row of DATA."""
    from scgan_infer.sampling.draw import Draw
    from scgan_infer.sampling.engines import Job
    from scgan_train.datasets import source_of

    actions.check_free(out, force)
    loaded = actions.load(model, device, threads)
    draw = Draw(0, seed, start) if noise == "random" else None
    job = Job(loaded, "reconstruct", draw, source_of(data, 10_000, 1), scheduler)
    actions.compute(job, engine, out, loaded.manifest.whole)


@app.command()
def encode(
    data: Data,
    model: Model = None,
    out: Out = "-",
    device: OnDevice = "auto",
    threads: Threads = None,
    engine: OnEngine = "local",
    scheduler: Scheduler = None,
    force: Force = False,
) -> None:
    """Write latent, discrete values and cluster of each row."""
    from scgan_infer.sampling.encoded import columns_of
    from scgan_infer.sampling.engines import Job
    from scgan_train.datasets import source_of

    actions.check_free(out, force)
    loaded = actions.load(model, device, threads)
    job = Job(loaded, op="encode", source=source_of(data, 10_000, 1), scheduler=scheduler)
    actions.compute(job, engine, out, columns_of(loaded.manifest))


@app.command()
def page(
    bundles: Annotated[list[Path], argument("BUNDLE...", "Folders of bundles.")],
    out: Annotated[Path, option("--out -o", "Folder to write.", "DIR")] = Path("page"),
    data: Annotated[
        Text, option("--data", "Real rows to show; default: those of a built-in.", "DATA")
    ] = None,
    n: Annotated[int, option("--n -n", "Most real rows to show.", "N", min=1)] = 5_000,
    runtime: Annotated[
        File, variable("--runtime", "npm's onnxruntime-web; default: in node_modules.", "DIR")
    ] = None,
    force: Force = False,
) -> None:
    """Write a page that samples bundles in the browser.

    The folder holds all that it needs, rows of --data included.
    """
    from scgan_infer.bundle import load
    from scgan_infer.page import write
    from scgan_train.datasets import DATASETS, judges

    if not force:  # a page is replaced by the new one when that is complete
        actions.check_free(out, force, actions.ANY)
    loaded, rows = [load(bundle) for bundle in bundles], {}
    for bundle in loaded:
        source = data or str(bundle.manifest.provenance.get("source"))
        if data is not None or source in DATASETS:
            rows[bundle.path] = judges(source, bundle.manifest.whole, n, 0)
    write(out, loaded, rows, runtime)
    say(
        f"page: {out}; next: python3 -m http.server --directory {quote(str(out))} 8000, "
        "then open http://localhost:8000"
    )


@app.command()
def info(
    bundle: Annotated[File, argument("BUNDLE", "Default: newest in exported/.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds and where it is from."""
    import json

    from scgan_infer.bundle import load

    manifest = load(actions.find_bundle(bundle)).manifest
    if as_json:
        show(*json.dumps(manifest.fields(), indent=1).split("\n"))
    else:
        show(*actions.about(manifest))


@app.command()
def verify(
    bundle: Annotated[Path, argument("BUNDLE", "Folder of a bundle.")],
    key: Annotated[File, option("--key", "The maker's; checks bundle.sig.", "PUBLIC.pem")] = None,
) -> None:
    """Check a bundle and compute its stored rows again.

    Checksums, graph rules, stored rows and, with --key, the signature.
    """
    from scgan_infer.sampling.verify import verify as check

    verdict = check(bundle, key)
    many = (
        f"{verdict.vectors} stored rows replayed" if verdict.vectors else "no stored rows to replay"
    )
    signed = "signature of this key" if verdict.signed else "signature not asked for (--key)"
    show(
        f"{bundle}: good; {len(verdict.bundle.manifest.files)} checksums, "
        f"{len(verdict.bundle.graphs)} graphs, {many}, "
        f"largest difference {verdict.worst:g} of the spread; {signed}"
    )


@app.command()
def datasets(
    name: Annotated[Text, argument("[NAME]", "One of them.")] = None,
    n: Annotated[int, option("--n -n", "Number of rows.", "N", min=1)] = 10_000,
    out: Out = "-",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """List built-in distributions, or write rows of one."""
    from scgan_train.datasets import DATASETS, table

    if name is None:
        show(*DATASETS)
    else:
        actions.check_free(out, force)
        actions.write_table(table(name, n, seed), out)


@app.command()
def bench(
    model: Model = None, threads: Threads = None, device: OnDevice = "auto", as_json: AsJson = False
) -> None:
    """Measure rows per second, stage by stage."""
    import json
    from dataclasses import asdict

    from scgan_infer.sampling.bench import rates

    measured = rates(actions.load(model, device, threads))
    if as_json:
        show(json.dumps({**asdict(measured), "share": measured.share}))
        return
    show(f"{measured.threads} threads, {measured.device}; million rows per second")
    for stage in ("noise", "mapper", "decoder", "whole", "write"):
        show(f"{stage:<8} {getattr(measured, stage) / 1e6:8.2f}")
    show(f"whole / decoder: {measured.share:.0%}")


@app.command()
def doctor() -> None:
    """List what is installed here and what to install."""
    from scgan_train.app.doctor import report

    show(*report())


HeldOut = Annotated[str, argument("DATA", "Rows that were not trained on.")]
Samples = Annotated[File, option("--samples", "Generated rows, instead of a model's.", "FILE")]
Compared = Annotated[int, option("--n -n", "Most generated rows to compare.", "N", min=10)]


@app.command()
def evaluate(
    data: HeldOut,
    model: Model = None,
    samples: Samples = None,
    train: Annotated[
        File, option("--train", "Rows trained on; measures copies of them.", "FILE")
    ] = None,
    n: Compared = 10_000,
    seed: Seed = 0,
    as_json: AsJson = False,
    report: Annotated[File, option("--report", "Write a page.", "FILE.html")] = None,
    force: Annotated[bool, option("--force", "Replace what has the name of --report.")] = False,
) -> None:
    """Measure how far generated rows are from DATA.

    Each figure stands beside its floor: what other real rows score in place of the generated ones.
    """
    import json

    from scgan_infer.files import write_bytes
    from scgan_infer.judging.evaluation import MOST_SEEN
    from scgan_infer.judging.layout import table_text, verdict
    from scgan_train.datasets import subject

    actions.check_free(report, force)
    with Watch() as watch:
        watch.begin("reading and sampling")
        judged = subject(data, actions.judged_model(model, samples), samples, train, n, seed)
        watch.begin("measuring")
        figures = judged.figures(seed)
        conditional = None if samples is not None else judged.conditional(seed)
    facts = {"data": data, "generated": judged.origin, "seed": str(seed)}
    if train is not None:
        facts["train"] = str(train)
    for note in judged.real.notes:
        say(f"note: {note}")
    seen = judged.seen()
    if seen > MOST_SEEN:
        say(
            f"note: {seen:.0%} of the rows of {data} were trained on; give rows not trained on: "
            "these can't show copies or what was learned by heart"
        )
    if report is not None:
        page = judged.page(figures, f"{judged.origin} against {data}", facts, conditional)
        write_bytes(report, page.encode())
        say(f"report: {report}")
    results = {**facts, "verdict": verdict(figures)._asdict(), **figures.to_dict()}
    if conditional is not None:
        results["given"] = conditional.to_dict()
    text = table_text(figures, conditional.tables() if conditional else None)
    shown = json.dumps(results, indent=1) if as_json else text
    show(*shown.split("\n"))


@app.command()
def reproduce(
    seeds: Annotated[int, option("--seeds", "Trainings of each cell.", "N", min=1)] = 1,
    out: Annotated[Path, option("--out -o", "Folder to write.", "DIR")] = Path("reproduced"),
    preset: Annotated[Size, option("--preset", "Speed or quality.")] = "standard",
    jobs: Annotated[Whole, option("--jobs", "Processes; default: cores.", "N", min=1)] = None,
    resume: Annotated[bool, option("--resume", "Go on with what is in --out.")] = False,
    force: Force = False,
) -> None:
    """Make the paper's Table 1 and Figures 2 and 3.

    With its own maps and the default ones.
    """
    from scgan_train.reproduce import Plan
    from scgan_train.reproduce import reproduce as run_plan

    if not resume:
        actions.check_free(out, force, actions.REPRODUCED)
    run_plan(Plan(out, seeds, preset), jobs=jobs, resume=resume)
    show(*(out / "table.md").read_text("utf-8").splitlines())
    say(f"table and figures: {out}")

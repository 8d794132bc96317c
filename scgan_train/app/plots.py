"""The commands of `scgan plot`: each draws one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scgan_train.app import actions
from scgan_train.app.commands import (
    Compared,
    Data,
    Force,
    Model,
    OneRun,
    Samples,
    Seed,
    Text,
    app,
    option,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scgan_infer.columns import Table
    from scgan_infer.sampling.model import Model as Bundle

__all__ = ["app"]  # with these commands

plot = typer.Typer(help="Draw samples, clusters, latents, losses or noise.")
app.add_typer(plot, name="plot")

Picture = Annotated[Path, option("--out -o", "Picture: .png, .pdf or .svg.", "FILE")]


def _rows_of(data: str, model: Bundle, seed: int) -> NDArray[np.float32]:
    """Return rows of DATA as a model takes them, and report which were left out."""
    from scgan_train.datasets import judges

    table = judges(data, model.manifest.whole, 20_000, seed)
    _say_notes(table)
    return table.values


def _say_notes(table: Table) -> None:
    for note in table.notes:
        actions.say(f"note: {note}")


@plot.command("samples")
def plot_samples(
    data: Data,
    model: Model = None,
    samples: Samples = None,
    n: Compared = 10_000,
    seed: Seed = 0,
    columns: Annotated[
        Text, option("--columns", "These, or all: six on a page, NAME-1 and so on.", "a,b|all")
    ] = None,
    out: Picture = Path("samples.png"),
    force: Force = False,
) -> None:
    """Draw rows of DATA beside as many generated rows."""
    from scgan_infer.judging.plots import data_and_samples, pages
    from scgan_train.datasets import subject

    if columns is None:
        actions.check_free(out, force)
    judged = subject(data, actions.judged_model(model, samples), samples, None, n, seed)
    real, made = judged.real, judged.samples[:n]
    _say_notes(real)
    for path, indices in pages(out, real.names, columns):
        actions.check_free(path, force)
        picked = [real.columns[j] for j in indices]
        picture = data_and_samples(real.values[:, indices], made[:, indices], picked)
        actions.save_picture(picture, path)


@plot.command("given")
def plot_given(
    data: Data,
    model: Model = None,
    column: Annotated[
        Text, option("--column", "Given column to cut; default: the first.", "NAME")
    ] = None,
    seed: Seed = 0,
    out: Picture = Path("given.png"),
    force: Force = False,
) -> None:
    """Draw DATA beside rows generated at its conditions.

    A row of pictures for each range of a given column, low to high, or for each of its names.
    """
    from scgan_infer.judging.evaluation import given_picture

    actions.check_free(out, force)
    loaded = actions.load(model, "cpu", None)
    rows = _rows_of(data, loaded, seed)
    actions.save_picture(given_picture(loaded, rows, column, seed), out)


@plot.command("clusters")
def plot_clusters(
    data: Data,
    model: Model = None,
    seed: Seed = 0,
    out: Picture = Path("clusters.png"),
    force: Force = False,
) -> None:
    """Draw the latents of DATA, coloured by cluster."""
    from scgan_infer.judging.plots import latent_clusters

    actions.check_free(out, force)
    loaded = actions.load(model, "cpu", None)
    rows = _rows_of(data, loaded, seed)
    actions.save_picture(latent_clusters(*loaded.encode(rows)), out)


@plot.command("latents")
def plot_latents(
    data: Data,
    models: Annotated[list[Path], option("--model -m", "Repeatable.", "BUNDLE")],
    seed: Seed = 0,
    out: Picture = Path("latents.png"),
    force: Force = False,
) -> None:
    """Draw the latents of DATA beside those of each model."""
    from scgan_infer.judging.evaluation import latent_picture
    from scgan_infer.sampling.model import load

    actions.check_free(out, force)
    loaded = [load(model) for model in models]
    rows = _rows_of(data, loaded[0], seed)
    actions.save_picture(latent_picture(rows, loaded), out)


@plot.command("curves")
def plot_curves(
    run: OneRun = None, out: Picture = Path("curves.png"), force: Force = False
) -> None:
    """Draw the losses of a training."""
    from scgan_infer.judging.plots import training_curves
    from scgan_train.runs import newest

    actions.check_free(out, force)
    history = (run or newest("history.jsonl")) / "history.jsonl"
    actions.save_picture(training_curves(history), out)


@plot.command("noise")
def plot_noise(
    model: Model = None, seed: Seed = 0, out: Picture = Path("noise.png"), force: Force = False
) -> None:
    """Draw what each dimension of the decoder's noise does to rows."""
    from scgan_infer.judging.evaluation import noise_picture

    actions.check_free(out, force)
    actions.save_picture(noise_picture(actions.load(model, "cpu", None), seed), out)

"""Figures and pictures of rows and a bundle, for `scgan evaluate` and `scgan plot`.

    held-out rows  ->  as many rows of the model, fresh for every cut  ->  figures beside floors
                   ->  their reconstructions, latents and clusters     ->  pictures

`Subject` is what is judged: rows from a model, or from anywhere as a file. The columns are the
model's, else those that the held-out rows are guessed to have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scgan_infer.arguments import whole
from scgan_infer.columns import Column, Table, grown
from scgan_infer.errors import DataError, UsageError
from scgan_infer.judging.distances import MOST_TREE_ROWS
from scgan_infer.judging.figures import CUTS, LEAST_ROWS, MOST_ROWS, Figures
from scgan_infer.judging.figures import evaluate as compare
from scgan_infer.judging.report import html
from scgan_infer.rows.formats import read_table
from scgan_infer.sampling.noise import BLOCK

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

    from scgan_infer.judging.conditional import Conditional
    from scgan_infer.sampling.model import Model

Floats = NDArray[np.float32]

MOST_DRAWN = 120  # columns that a report has pictures of: 20 pages of six
MOST_NAMES = 5  # that a note lists of a column
MOST_SEEN = 0.5  # of the held-out rows may have been trained on, as where rows repeat
MOST_REAL = 200_000  # held-out rows that a support is made of
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of one dimension of the decoder's noise
NOISE_ROWS = 1000  # moved by it


@dataclass(frozen=True)
class Subject:
    """The samples that are judged, and the held-out rows that judge them.

    Attributes:
        real: held-out rows; columns may have more names than the model's.
        samples: [k, d] generated rows.
        origin: the bundle's folder or the file that they came from.
        n: most rows to compare at a time.
        model: the model that made them; None if it is not known.
        train: [t, d] rows that the model was trained on.
    """

    real: Table
    samples: Floats
    origin: str
    n: int
    model: Model | None = None
    train: Floats | None = None

    @cached_property
    def inputs(self) -> Floats:
        """The held-out rows that the model can encode; none where too few, or without a model."""
        rows = (
            self.real.values[:0] if self.model is None else encodable(self.model, self.real.values)
        )
        return rows if len(rows) >= LEAST_ROWS else rows[:0]

    @cached_property
    def reconstructed(self) -> Floats | None:
        """The model's reconstructions of these rows."""
        return self.model.reconstruct(self.inputs) if self.model and len(self.inputs) else None

    @cached_property
    def encoded(self) -> tuple[Floats, NDArray[np.int64]] | None:
        """These rows' latents and clusters."""
        return self.model.encode(self.inputs) if self.model and len(self.inputs) else None

    def figures(self, seed: int = 0) -> Figures:
        """Measure all that there are rows for: with a model, reconstructions and clusters too.

        Where the rows were trained on, copies can't be detected, and the support has no reach.

        Args:
            seed: of the cuts and the classifier.

        Raises:
            DataError: too few rows.
            UsageError: scikit-learn or scipy is not installed.
        """
        clusters = None
        if self.model is not None and self.encoded is not None:
            clusters = (self.encoded[1], self.model.encode(encodable(self.model, self.samples))[1])
        return compare(
            self.real.values,
            self.samples,
            columns=self.real.columns,
            train=None if self.seen() > MOST_SEEN else self.train,
            reconstructed=None if self.reconstructed is None else (self.inputs, self.reconstructed),
            clusters=clusters,
            n=self.n,
            seed=seed,
        )

    def conditional(self, seed: int = 0) -> Conditional | None:
        """Measure how good rows are at their own conditions; None where no columns are given."""
        from scgan_infer.judging.conditional import measure

        if self.model is None or not self.model.given or not len(self.inputs):
            return None
        return measure(self.model, self.inputs, seed)

    def seen(self) -> float:
        """Return the share of held-out rows known to be training rows, number for number."""
        if self.model and self.model.manifest.provenance.get("sha256") == self.real.fingerprint():
            return 1.0
        if self.train is None:
            return 0.0
        known = {row.tobytes() for row in self.train}
        return float(np.mean([row.tobytes() in known for row in self.real.values]))

    def page(
        self,
        figures: Figures,
        title: str,
        facts: dict[str, str],
        conditional: Conditional | None = None,
    ) -> str:
        """Return figures and pictures as one page of HTML; all columns are drawn, six a picture."""
        from scgan_infer.judging.canvas import png
        from scgan_infer.judging.plots import data_and_samples, in_pages, latent_clusters

        values, columns = self.real.values, self.real.columns
        pictures = {"Data and samples": png(data_and_samples(values, self.samples, columns))}
        parts = in_pages(range(len(columns))[:MOST_DRAWN])
        for part in parts if len(parts) > 1 else []:
            some = [columns[j] for j in part]
            picture = png(data_and_samples(values[:, part], self.samples[:, part], some))
            pictures[f"Columns {part[0] + 1} to {part[-1] + 1} of {len(columns)}"] = picture
        if self.reconstructed is not None and self.encoded is not None:
            figure = data_and_samples(values, self.reconstructed, columns, name="reconstructions")
            pictures["Data and its reconstructions"] = png(figure)
            pictures["Latents of the data, by cluster"] = png(latent_clusters(*self.encoded))
        more = conditional.tables() if conditional else None
        return html(figures, pictures, title, facts=facts, more=more)


def from_model(
    real: Table, model: Model, n: int, seed: int, train: Floats | None = None
) -> Subject:
    """Draw fresh rows for every cut.

    Those of given columns are drawn at the conditions of a third of the rows; the others judge.

    Args:
        real: held-out rows, in the model's columns.
        model: the model to draw from.
        n: most rows to compare at a time.
        seed: of the samples.
        train: rows that the model was trained on.

    Raises:
        DataError: the rows have other columns than the model.
    """
    names = [column.name for column in model.manifest.whole]
    if list(real.names) != names:
        raise DataError(
            f"the rows have columns {', '.join(real.names)}, the model {', '.join(names)}; "
            "give rows of the same columns"
        )
    values, n = real.values, whole("n", n)
    if model.given:
        order = np.random.default_rng([seed, 0xF0]).permutation(len(values))
        third, values = np.split(values[order], [len(values) // 3])
        third, many = encodable(model, third), min(n, MOST_ROWS, len(values) // 2)
        if not len(third):
            raise DataError("no row has conditions that the model knows; give rows of some")
        c = np.resize(model.divided(third)[1], (CUTS * many, len(model.given)))
        samples = model.together(model.sample(given=c, seed=seed), c)
    else:
        samples = model.sample(CUTS * min(n, MOST_ROWS, len(values) // 2), seed=seed)
    real = replace(real, values=values)
    return Subject(real, samples, str(model.bundle.path), n, model, train)


def from_file(
    real: Table, path: Path, n: int, model: Model | None = None, train: Floats | None = None
) -> Subject:
    """Take samples from a file; those of an unknown model may break walls, and are judged.

    Args:
        real: held-out rows.
        path: the file of samples, with the same columns.
        n: most rows to compare at a time.
        model: the model that made them, if it is known.
        train: rows that it was trained on.

    Raises:
        DataError: a file that can't be read, or that holds other columns.
    """
    columns = tuple(column.loose for column in real.columns) if model is None else real.columns
    most = CUTS * min(whole("n", n), MOST_ROWS)
    samples = read_table(path, columns=columns, max_rows=most, grow=True)
    if new := news(real.columns, samples):
        real = replace(
            real, notes=(*real.notes, f"{path}: cells that the judging rows don't know: {new}")
        )
    real = replace(real, columns=grown(real.columns, samples))
    return Subject(real, samples.values, str(path), n, model, train)


def training_rows(path: Path, columns: Sequence[Column]) -> Table:
    """Read the rows that a model was trained on, as many as can be searched.

    Raises:
        DataError: a file that can't be read, or that holds other columns.
    """
    loose = [column.loose for column in columns]
    return read_table(path, columns=loose, max_rows=MOST_TREE_ROWS, grow=True)


def encodable(model: Model, values: Floats) -> Floats:
    """Return the rows of [n, d + g] with no name or missing cell that the model does not have."""
    known = np.ones(len(values), bool)
    for column, cells in zip(model.manifest.whole, values.T, strict=True):
        known &= np.where(np.isnan(cells), column.missing, ~_new(column, cells))
    return values[known]


def news(columns: Sequence[Column], table: Table) -> str:
    """Describe a table's cells with new names, or missing where none was; "" if there are none."""
    unseen = []
    for column, wider, cells in zip(columns, table.columns, table.values.T, strict=True):
        new = _new(column, cells)
        missing = np.isnan(cells) & (not column.missing)
        names = [repr(wider.categories[int(k)]) for k in np.unique(cells[new])]
        names = names[:MOST_NAMES] + ["..."] * (len(names) > MOST_NAMES)
        names += ["missing"] * bool(missing.any())
        if names:
            count = np.count_nonzero(new | missing)
            unseen.append(f"{count} of {column.name} ({', '.join(names)})")
    return ", ".join(unseen)


def _new(column: Column, cells: Floats) -> NDArray[np.bool_]:
    """Return for each cell [n] whether it is a name that the column does not have."""
    return (cells >= len(column.categories)) & column.rules.named


def latents_of(model: Model, block: int, seed: int = 0) -> tuple[Floats, NDArray[np.int64]]:
    """Draw a block of latents [4096, e] and choices from a model's latent model."""
    u, w, _ = model.noise(whole("seed", seed), range(block, block + 1))
    latent, choice = model.run("mappers.onnx", u=u, w=w, c=model.example(BLOCK))
    return latent, choice


def latent_picture(values: Floats, models: Sequence[Model]) -> Picture:
    """Draw the encoder's latents of rows [n, d] beside those of each model's latent model.

    Raises:
        UsageError: the models' encoders differ, so that their latents can't share axes.
    """
    from scgan_infer.judging.plots import latent_models

    true = models[0].encode(values)[0]
    latents: dict[str, Floats] = {}
    for model in models:
        if not np.allclose(model.encode(values)[0], true, atol=1e-3):
            raise UsageError(
                f"{model.bundle.path} has another encoder than {models[0].bundle.path}, "
                "so its latents have other axes; draw them apart"
            )
        manifest = model.manifest
        name = f"{manifest.latents} ({manifest.mapper})" if manifest.mapper else manifest.latents
        drawn = np.concatenate([latents_of(model, block)[0] for block in range(2)])
        latents[name if name not in latents else f"{name} {len(latents) + 1}"] = drawn
    return latent_models(true, latents)


def noise_picture(model: Model, seed: int = 0) -> Picture:
    """Draw what each dimension of the decoder's noise does to generated rows.

    Raises:
        UsageError: the bundle has no decoder noise.
    """
    from scgan_infer.judging.plots import noise_directions

    model.check_noise()
    latent, choice = latents_of(model, 0, seed)
    q = model.manifest.sizes["q"]

    def decoded(z: Floats) -> Floats:
        rows: Floats = model.run("decoder.onnx", latent=latent, choice=choice, z=z)[0][:NOISE_ROWS]
        return rows

    def along(k: int, strength: float) -> Floats:
        z = np.zeros((BLOCK, q), np.float32)
        z[:, k] = strength
        return decoded(z)

    moved = np.array([[along(k, strength) for strength in STRENGTHS] for k in range(q)])
    return noise_directions(
        decoded(np.zeros((BLOCK, q), np.float32)), moved, STRENGTHS, model.columns
    )


def given_picture(model: Model, rows: Floats, name: str | None = None, seed: int = 0) -> Picture:
    """Draw rows [n, d + g] beside ones generated at their conditions, by slices of a given column.

    Raises:
        UsageError: no columns are given, or none of that name.
    """
    from scgan_infer.judging.plots import given_slices

    names = [column.name for column in model.given]
    if not names or (name is not None and name not in names):
        raise UsageError(
            f"{name or model.bundle.path}: no given column; those are {', '.join(names) or 'none'}"
        )
    k = 0 if name is None else names.index(name)
    real, given = model.divided(rows)
    made = model.sample(given=given, seed=seed)
    data, samples, cells = (part.astype(np.float64) for part in (real, made, given[:, k]))
    return given_slices(data, samples, cells, model.given[k], model.columns)

"""The trainer as a scikit-learn estimator: `SCGAN().fit(X).sample(n)`.

    X, a DataFrame or an array  --fit: train, export-->  a bundle  --sample-->  rows in X's form

A fitted estimator holds the bundle's bytes in memory and no network, so it needs no folder and no
torch; `save` writes the bundle and `load` takes one, without a pickle.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from scgan_infer import bundle as bundles
from scgan_infer.bundle.manifest import EXTRAS
from scgan_infer.names import Device, Preset
from scgan_infer.sampling.model import Model
from scgan_train import config as configs

LEAST_ROWS = 3


class _Sampler:
    """A bundle in memory that draws rows; copies take its bytes along, and create new sessions."""

    def __init__(self, path: Path) -> None:
        self.bundle = bundles.load(path)
        names = [name for name in EXTRAS if name in self.bundle.manifest.files]
        self.extras = {name: (path / name).read_bytes() for name in names}

    @cached_property
    def model(self) -> Model:
        return Model(self.bundle, "cpu", 1)

    def __getstate__(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "extras": self.extras}


def _has_density(estimator: SCGAN) -> bool:
    check_is_fitted(estimator)
    if "density.onnx" not in estimator.sampler_.bundle.graphs:
        why = estimator.sampler_.bundle.manifest.provenance.get("no_density", "its map is no flow")
        raise AttributeError(f"this estimator has no density: {why}")
    return True


class SCGAN(BaseEstimator):  # type: ignore[misc]
    """A generator of rows like those that it was fitted to.

    Args:
        preset: "standard", "quick" or "paper".
        config: settings that differ from the preset's, as `scgan_train.train` takes them.
        random_state: the training's seed; a numpy generator to draw it from; or None for a new one.
        device: "auto", "cpu" or "cuda", used for training.

    Attributes:
        n_features_in_: d.
        feature_names_in_: names of the columns, where X had any.
    """

    def __init__(
        self,
        preset: Preset = "standard",
        *,
        config: dict[str, Any] | None = None,
        random_state: Any = 0,
        device: Device = "auto",
    ) -> None:
        self.preset = preset
        self.config = config
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on rows and export what was trained.

        Args:
            X: a DataFrame, or an array [n, d] of numbers; NaN or NA for a missing cell.
            y: not used.

        Raises:
            ValueError: X does not hold rows.
            ScganError: as `scgan_train.train` and `scgan_train.export`.
        """
        from scgan_train.api import export, train

        if hasattr(X, "columns"):
            validate_data(self, X, skip_check_array=True)
            self.form_: _Form | None = _Form.of(X)
        else:
            self.form_ = None
            X = validate_data(self, X, ensure_all_finite="allow-nan", ensure_min_samples=LEAST_ROWS)
        settings = configs.merge(
            configs.PRESETS[self.preset],
            {"seed": _seed(self.random_state), "device": self.device},
            self.config or {},
        )
        with TemporaryDirectory(prefix="scgan-") as folder:
            run = train(X, settings, Path(folder) / "run")
            self.sampler_ = _Sampler(export(run, Path(folder) / "bundle"))
        return self

    def sample(self, n_samples: int = 1, seed: int = 0, start: int = 0, **asked: Any) -> Any:
        """Return rows start .. start + n - 1 of the seed's stream, in the form of the X fitted to.

        Args:
            n_samples: n.
            seed: of the stream, whatever `random_state` was.
            start: the first row's number.
            asked: `cluster`, `temperature`, `where`; see `scgan_infer.sampling.model.Model.sample`.
        """
        check_is_fitted(self)
        model = self.sampler_.model
        if self.form_ is None:
            return model.sample(n_samples, seed, start, **asked)
        return self.form_.restored(model.sample_table(n_samples, seed, start, **asked))

    @available_if(_has_density)  # type: ignore[untyped-decorator]
    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Return each row's log-density [n]; see `scgan_infer.sampling.model.Model.log_prob`."""
        if hasattr(X, "columns"):
            validate_data(self, X, reset=False, skip_check_array=True)
        else:
            X = validate_data(self, X, reset=False, ensure_all_finite="allow-nan")
        return self.sampler_.model.log_prob(X).astype(np.float64)

    @available_if(_has_density)  # type: ignore[untyped-decorator]
    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-density of rows."""
        return float(self.score_samples(X).mean())

    def save(self, path: str | Path) -> Path:
        """Write the bundle, as `scgan export` does, and return its folder."""
        check_is_fitted(self)
        sampler = self.sampler_
        return bundles.save(path, sampler.bundle.manifest, sampler.bundle.graphs, sampler.extras)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return a fitted estimator of a bundle; its rows are as `Model.sample_table` has them."""
        fitted = cls()
        fitted.sampler_ = _Sampler(Path(path))
        names = [column.name for column in fitted.sampler_.bundle.manifest.columns]
        fitted.n_features_in_, fitted.feature_names_in_ = len(names), np.array(names, object)
        fitted.form_ = _Form([], {})
        return fitted

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "sampler_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "density_estimator"
        tags.input_tags.allow_nan = True
        return tags


class _Form:
    """The labels and types of a DataFrame's columns, to restore them in generated ones."""

    def __init__(self, labels: list[Any], types: dict[str, Any]) -> None:
        self.labels, self.types = labels, types

    @classmethod
    def of(cls, X: Any) -> Self:
        """Record the form of a DataFrame, or of another mapping, which has no types."""
        types = {str(name): getattr(column, "dtype", None) for name, column in X.items()}
        return cls([name for name, _ in X.items()], types)

    def restored(self, table: Any) -> Any:
        """Restore the types and labels of columns, where all their values fit these."""
        if not hasattr(table, "astype"):
            return table
        labels = {str(label): label for label in self.labels}
        for name in table.columns:
            kind: Any = self.types.get(name)
            if isinstance(kind, np.dtype) and kind.kind in "iub" and table[name].isna().any():
                continue
            if hasattr(kind, "categories"):
                names = {str(category): category for category in kind.categories}
                table[name] = table[name].map(names)
            if kind is not None:
                table[name] = table[name].astype(kind)
        return table.rename(columns=labels)


def _seed(state: Any) -> int:
    """Return the seed that a `random_state` names or draws."""
    if state is None:
        state = np.random.default_rng()
    draw = getattr(state, "integers", None) or getattr(state, "randint", None)
    return int(draw(2**31)) if draw else state

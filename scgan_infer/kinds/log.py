"""Positive numbers that differ by factors; never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scgan_infer.kinds.base import Floats, Form, Kind, Parameters, Raw, Values, refuse

if TYPE_CHECKING:
    from scgan_infer.columns import Column


class Logarithm(Form):
    """f(x) = log x."""

    name = "log"

    def coordinate(self, x: Raw, p: Parameters) -> Raw:
        return np.asarray(np.log(x))

    def inverse(self, y: Raw, p: Parameters) -> Raw:
        """See `Form.inverse`; what float32 holds."""
        return np.asarray(np.exp(np.clip(y, -87.0, 88.0)))

    def log_slope(self, x: Raw, p: Parameters) -> Raw:
        positive = x > 0
        return np.where(positive, -np.log(np.where(positive, x, 1)), -np.inf).astype(x.dtype)


class Log(Kind):
    """f(x) = log x."""

    fields = frozenset({"decimals", "grid", "origin"})
    forms = (Logarithm(),)
    learns_rounding = True
    axis = "log"

    def ends(self, column: Column) -> tuple[float, float]:
        p, q, r = column.lattice
        return 0.0 if self.step(column) is None else (r or p) / q, np.inf

    def hold(self, raw: Raw, values: Values, column: Column | None) -> Values:
        refuse(values <= 0, raw, "is not positive, as a log column must be")
        return values

    def features(self, values: Floats, column: Column) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log(values)[:, None])

    def edges(self, column: Column, values: Floats, bins: int) -> Floats:
        return np.asarray(np.exp(super().edges(column, np.log(values[values > 0]), bins)))

    def form(self, column: Column) -> Form:
        return self.forms[0]

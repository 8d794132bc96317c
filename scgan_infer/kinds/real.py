"""Any finite number, perhaps rounded to decimals, to significant digits or to a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scgan_infer.kinds.base import LINE, Form, Kind
from scgan_infer.kinds.bend import BEND

if TYPE_CHECKING:
    from scgan_infer.columns import Column
    from scgan_infer.kinds.guessing import Evidence


class Real(Kind):
    """f(x) = x."""

    forms = (LINE, BEND)
    fields = frozenset({"decimals", "digits", "grid", "origin", "anchor"})

    def guess(self, evidence: Evidence) -> dict[str, Any]:
        """See `Kind.guess`; what is nothing else is this."""
        return evidence.rounding()

    def form(self, column: Column) -> Form:
        return LINE

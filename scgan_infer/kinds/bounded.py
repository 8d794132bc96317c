"""Numbers that stop at a wall or two; guessed where many lie on one or their density breaks off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scgan_infer.kinds.walls import Walled

if TYPE_CHECKING:
    from scgan_infer.columns import Column
    from scgan_infer.kinds.guessing import Evidence


class Bounded(Walled):
    """See `scgan_infer.kinds.walls`."""

    fields = Walled.fields | {"decimals", "digits", "grid", "origin"}
    marks = ("low", "high")
    learns_rounding = True

    def check(self, column: Column) -> str:
        if column.low is None and column.high is None:
            return "a bounded column needs a low or a high wall"
        return super().check(column)

    def guess(self, evidence: Evidence) -> dict[str, Any] | None:
        walls = evidence.walls()
        return evidence.rounding() | walls if walls else None

    def waits(self, settings: Mapping[str, Any]) -> bool:
        return settings.get("low") is None and settings.get("high") is None

    def complete(self, settings: Mapping[str, Any], low: float, high: float) -> dict[str, Any]:
        """See `Kind.complete`; the walls are the extremes."""
        return {"low": low, "high": high}

"""Checks for failed trainings; each gives one line with advice.

| what                  | how it shows                                  | then                   |
| --------------------- | --------------------------------------------- | ---------------------- |
| a loss is no number   | at the next look at the losses (`loop`)       | the run stops          |
| the encoder collapsed | one direction holds all spread of the latents | the run stops          |
| a critic won outright | its loss is near 0 in a phase's last quarter  | phase undone and noted |
| worse than a constant | squared error above the variance              | the run stops          |
| bad figures           | c2st or mse beyond these bounds               | the export says so     |
| a share is off        | of a cluster or discrete value, by far        | the export says so     |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from scgan_infer.errors import ScganError
from scgan_infer.judging.figures import off_shares

TINY = 1e-9  # variance of coordinates that are all the same
LEAST_RANK = 0.1
OUTRIGHT = 0.05
WORST = {
    "c2st": (0.55, "a classifier tells its samples from real rows"),
    "mse": (0.5, "its reconstructions keep too little of the rows"),
}
MOST_NAMED = 3  # shares that are off


class TrainingError(ScganError):
    """A training that failed."""


def effective_rank(rows: Tensor) -> float:
    """Return exp of the entropy of rows' [n, e] covariance spectrum: how many directions matter.

    >>> rows = torch.eye(4).repeat(10, 1)
    >>> round(effective_rank(rows), 6), effective_rank(rows * 0)
    (3.0, 0.0)
    """
    values = torch.linalg.eigvalsh(torch.cov(rows.double().T).reshape(rows.shape[1], -1)).clamp(
        min=0
    )
    if not float(values.sum()) > 0:
        return 0.0
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def check_encoder(latents: Tensor, y: Tensor) -> None:
    """Raise if latents [n, e] keep next to nothing of their coordinates [n, d'].

    Raises:
        TrainingError: they are not finite, or have lost all directions but one.
    """
    rank, expected = 0.0, min(effective_rank(y), latents.shape[1])
    if not expected:
        return
    if torch.isfinite(latents).all():
        rank = effective_rank(latents)
    if rank < min(1.0, expected) * 0.99 or rank - 1 < LEAST_RANK * (expected - 1):
        raise TrainingError(
            f"stage encoder: it collapsed, its latents have effective rank {rank:.2f} "
            f"where the data has {expected:.2f}; lower encoder.lr, or set encoder.kind=columns"
        )


def check_decoder(again: Tensor, y: Tensor) -> None:
    """Raise if reconstructions [n, d'] of the coordinates y are worse than y's mean.

    Raises:
        TrainingError: their squared error is larger.
    """
    error, constant = (float(part.square().mean()) for part in (again - y, y - y.mean(0)))
    if not error <= max(constant, TINY):
        raise TrainingError(
            f"stage decoder: its reconstructions have squared error {error:.3g}, "
            f"a constant has {constant:.3g}; "
            "lower decoder.lr, or give it more decoder.warm_steps"
        )


def critic_won(critic_losses: list[float]) -> bool:
    """Return whether a critic, whose loss is log 4 at a draw, always tells generated from real."""
    return bool(critic_losses) and sum(critic_losses) / len(critic_losses) < OUTRIGHT * math.log(4)


def quality_warnings(figures: Mapping[str, float], rows: str = "held-out rows") -> list[str]:
    """Return warnings about a run's figures on such rows, of c2st only beyond twice its error.

    >>> quality_warnings({"c2st": 0.52, "mse": 0.01, "rows": 1000})
    []
    """
    warnings, count = [], figures.get("rows", math.inf)
    for name, (worst, meaning) in WORST.items():
        error = c2st_error(count) if name == "c2st" else 0.0
        value = figures.get(name, 0.0)
        if not value - 2 * error <= worst:
            swing = f" ± {error:.2g}" if error else ""
            warnings.append(
                f"{name} {value:.3g}{swing} on {rows} (at most {worst:g} is good): {meaning}; "
                "train longer, with preset=standard or other settings"
            )
    return warnings


def c2st_error(rows: float) -> float:
    """Return the standard deviation of an ROC AUC near 0.5 of so many rows and as many others."""
    return math.sqrt((2 * rows + 1) / 12) / rows if math.isfinite(rows) else 0.0


def share_warnings(
    outcomes: Iterable[tuple[Sequence[str], Tensor, Tensor]], rows: str = "held-out ones"
) -> list[str]:
    """Return warnings where generated rows' shares are far from real rows', the farthest first.

    Args:
        outcomes: of each step, the names of its outcomes, and the outcomes [n] of real and [m] of
            generated rows.
        rows: what the real ones are called.
    """
    deviations = []
    for names, *sides in outcomes:
        real, made = (torch.bincount(side, minlength=len(names)).numpy() for side in sides)
        count = len(sides[0])
        deviations += [(names[value], a, b, count) for value, a, b in off_shares(real, made)]
    deviations.sort(key=lambda each: -abs(each[1] - each[2]))
    return [
        f"{name}: {made:.2%} of generated rows, but "
        f"{real:.2%} ± {math.sqrt(real * (1 - real) / count):.2%} of {rows}; "
        "train longer, or with other settings"
        for name, real, made, count in deviations[:MOST_NAMED]
    ]

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from scgan_infer.columns import Column, Table
from scgan_infer.errors import UsageError
from scgan_train import config as configs
from scgan_train.app.settings import assignment
from scgan_train.resolving import resolve

NOTHING_IS_FINE = {
    *(
        "seed",
        "encoder.steps",
        "mapper.steps",
        "decoder.warm_steps",
        "decoder.steps",
        "decoder.ema",
    ),
    *("decoder.reconstruction", "decoder.lambda_r", "decoder.lambda_x"),
    *("decoder.orthogonality", "decoder.penalty"),
}
AUTO = {
    *(
        "encoder.latent_dim",
        "clusters.k",
        "mapper.steps",
        "mapper.width",
        "mapper.lr",
        "mapper.layers",
        "encoder.steps",
    ),
    "decoder.steps",
}


def numbers(settings: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Names of all settings that are numbers."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{where}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{where}{name}"


NUMBERS = sorted({*numbers(configs.to_dict(configs.Config())), *AUTO})


def build(name: str, value: float) -> configs.Config:
    return configs.from_dict(assignment(f"{name}={value}"))


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_counted_or_divided_by_is_never_nothing(name: str) -> None:
    if name in NOTHING_IS_FINE:
        assert build(name, 0) != build(name, 1)
    else:
        with pytest.raises(
            UsageError, match=rf"setting {name} = 0(.0)?: a finite number above 0 is needed"
        ):
            build(name, 0)
    with pytest.raises(UsageError, match=rf"setting {name} = -1(.0)?: a finite number "):
        build(name, -1)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_settings_are_finite(value: float) -> None:
    with pytest.raises(
        UsageError, match=rf"setting mapper.lr = {value}: a finite number above 0 is needed"
    ):
        configs.from_dict({"mapper": {"lr": value}})


def test_an_average_never_keeps_more_than_all() -> None:
    with pytest.raises(
        UsageError, match=r"setting decoder.ema = 1.5: a finite number from 0 to 1 is needed"
    ):
        build("decoder.ema", 1.5)


@pytest.mark.parametrize(
    ("width", "given", "kept", "kind"),
    [
        (256, (), 256, "columns"),
        (257, (), 256, "linear"),
        (17, ("x0",), 16, "columns"),
        (18, ("x0",), 16, "linear"),
    ],
)
def test_a_wide_table_keeps_all_its_dimensions_up_to_256(
    width: int, given: tuple[str, ...], kept: int, kind: str
) -> None:
    rows = np.random.default_rng(0).standard_normal((300, width), np.float32)
    table = Table(tuple(Column(f"x{j}") for j in range(width)), rows)
    encoder = resolve(configs.Config(device="cpu", given=given), table).encoder
    assert (encoder.latent_dim, encoder.kind) == (kept, kind)

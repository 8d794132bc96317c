from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import mixed_table

from scgan_infer.columns import Column, Table
from scgan_train.transform import Transform


@pytest.fixture
def table() -> Table:
    return mixed_table()


def there_and_back(table: Table) -> np.ndarray:
    transform = Transform.fit(table)
    return transform.inverse(transform(torch.from_numpy(table.values))).numpy()


def test_inverse_gives_every_row_back(table: Table) -> None:
    again = there_and_back(table)
    assert np.allclose(again, table.values, rtol=2e-5, atol=2e-5)


def test_coordinates_are_standardised_and_constant_columns_leave(table: Table) -> None:
    transform = Transform.fit(table)
    y = transform(torch.from_numpy(table.values))
    assert y.shape[1] == len(table.columns) - 1
    assert torch.allclose(y.mean(0), torch.zeros(()), atol=1e-3)
    assert torch.allclose(y.std(0), torch.ones(()), atol=1e-2)


def test_any_coordinates_come_back_inside_every_domain(table: Table) -> None:
    transform = Transform.fit(table)
    wild = 30 * torch.randn(20_000, transform.dims, generator=torch.Generator().manual_seed(1))
    columns = dict(
        zip((c.name for c in table.columns), transform.inverse(wild).numpy().T, strict=True)
    )
    assert np.isfinite(np.stack(list(columns.values()))).all()
    assert (columns["pt"] > 0).all()
    assert ((columns["phi"] >= -180) & (columns["phi"] < 180)).all()
    assert ((columns["share"] >= 0) & (columns["share"] <= 1)).all()
    assert (columns["depth"] >= 2).all()
    assert (
        columns["depth"] == np.round(columns["depth"].astype(np.float64), 2).astype(np.float32)
    ).all()
    assert (columns["count"] == np.round(columns["count"])).all()
    assert set(np.unique(columns["species"])) == {0.0, 1.0, 2.0}
    assert (columns["same"] == 7.5).all()


def test_the_seam_lies_where_the_data_is_emptiest() -> None:
    rng = np.random.default_rng(0)
    angles = (179 + 25 * rng.standard_normal(4000) + 180) % 360 - 180
    assert (np.abs(angles) > 150).mean() > 0.5
    table = Table(
        (Column("phi", "periodic", period=360.0, low=-180.0),), angles[:, None].astype(np.float32)
    )
    transform = Transform.fit(table)
    y = transform(torch.tensor([[179.9], [-179.9], [90.0]]))
    assert abs(float(y[0] - y[1])) < 0.02 < 1 < abs(float(y[0] - y[2]))


@pytest.mark.parametrize("low", [0.0, -np.pi, 5.0])
def test_a_period_s_end_is_never_reached(low: float) -> None:
    column = Column("phi", "periodic", period=2 * np.pi, low=float(np.float32(low)))
    values = np.float32(low + np.linspace(0, 6.28, 300))[:, None]
    transform = Transform.fit(Table((column,), values))
    y = torch.linspace(-40, 40, 200_001)[:, None]
    x = transform.inverse(y).double()
    assert (x >= np.float32(low)).all()
    assert (x < np.float64(np.float32(low)) + 2 * np.pi).all()


def test_rows_that_all_agree_are_one_coordinate() -> None:
    table = Table((Column("a"), Column("b")), np.full((10, 2), 3.0, np.float32))
    assert np.array_equal(there_and_back(table), table.values)


def test_dequantised_steps_round_back(table: Table) -> None:
    transform = Transform.fit(table)
    values = torch.from_numpy(table.values)
    noisy = transform.dequantise(values, torch.Generator().manual_seed(0))
    stepped = [table.names.index(name) for name in ("count", "depth")]
    assert (noisy[:, stepped] != values[:, stepped]).float().mean() > 0.99
    assert torch.equal(noisy[:, stepped[0]].round(), values[:, stepped[0]])
    again = transform.inverse(transform(noisy))
    assert (again[:, stepped] == values[:, stepped]).float().mean() > 0.999
    others = [j for j in range(len(table.columns)) if j not in stepped]
    assert torch.equal(noisy[:, others], values[:, others])


@pytest.mark.parametrize(
    ("column", "least", "greatest"),
    [
        (Column("x", "log", decimals=1), 0.1, None),
        (Column("x", "bounded", low=0.004, high=0.996, decimals=2), 0.01, 0.99),
        (Column("x", "bounded", high=-1.5, decimals=0), None, -2.0),
        (Column("x", "integer", low=0.0, high=40.0), 0.0, 40.0),
        (Column("x", "integer", low=0.0), 0.0, None),
    ],
)
def test_steps_end_at_walls_and_reach_them(
    column: Column, least: float | None, greatest: float | None
) -> None:
    start, stop = least if least is not None else -20.0, greatest if greatest is not None else 20.0
    step = column.step or 0.0
    values = np.linspace(start, stop, round((stop - start) / step) + 1, dtype=np.float32)
    transform = Transform.fit(Table((column,), values[:, None]))
    x = transform.inverse(torch.linspace(-30, 30, 100_001)[:, None]).numpy()
    assert np.array_equal(x, (np.rint(x.astype(np.float64) / step) * step).astype(np.float32))
    assert not np.signbit(x[x == 0]).any()
    assert least is None or x.min() == np.float32(least)
    assert greatest is None or x.max() == np.float32(greatest)
    assert set(np.float32(np.round(values, 6))) <= set(
        np.float32(np.round(x[:, 0].astype(np.float64), 6))
    )

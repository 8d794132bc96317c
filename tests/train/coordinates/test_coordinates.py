from __future__ import annotations

import itertools

import numpy as np
import onnxruntime
import pytest
from cases import mixed_table

from scgan_infer.columns import Column, Table
from scgan_infer.kinds import KINDS, Form, Kind
from scgan_infer.kinds.base import Parameters, Raw, significant, snapped
from scgan_train import graph
from scgan_train.coordinates import describing, discrete
from scgan_train.coordinates.forms import GRAPHS, Graphs
from scgan_train.coordinates.transform import Coordinates


@pytest.fixture
def table() -> Table:
    return mixed_table()


@pytest.fixture(autouse=True)
def forms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every column the coordinate of its kind; `test_discrete` has discrete values and scores."""
    monkeypatch.setattr(discrete, "find", lambda *_: ())
    monkeypatch.setattr(describing, "is_scored", lambda column, present: False)
    monkeypatch.setattr(discrete, "is_spiked", lambda column, cells: False)


def there_and_back(table: Table) -> np.ndarray:
    mapped = Coordinates.fit(table)
    return mapped.inverse(mapped.forward(table.values))


def run(function, width, values):  # type: ignore[no-untyped-def]
    x = graph.argument(["n", width])
    content = graph.model({"x": x}, {"y": function(x)})
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values.astype(np.float32)})[0]


def columns_of(kind: str, rng: np.random.Generator) -> list[Column]:
    """Return random columns of a kind, of each of its forms."""
    low = float(np.round(rng.normal(0, 50), 1))
    walls = [{"low": low}, {"high": low}, {"low": low, "high": low + rng.integers(3, 90)}]
    decimals = [{}, {"decimals": int(rng.integers(0, 4))}, {"grid": 1 / 3, "origin": 0.1}]
    fields = {
        "real": [*decimals, {"digits": int(rng.integers(2, 6))}],
        "log": decimals,
        "periodic": [
            {"period": float(rng.uniform(1, 400)), "low": start} | more
            for start in (0.0, low)
            for more in ({}, {"decimals": 1}, {"grid": 1 / 3, "origin": 0.1})
        ],
        "bounded": [wall | more for wall in walls for more in decimals],
        "integer": [{}, *walls, {"grid": 5.0, "origin": 2.0}],
        "category": [{"categories": tuple("abcde")}],
        "id": [{"low": 1.0}],
        "datetime": [
            {"resolution": "D", "pattern": "YYYY-MM-DD", "anchor": 18_000.0} | more
            for more in ({}, {"low": 18_000.0}, {"low": 17_900.0, "high": 18_200.0})
        ],
    }[kind]
    return [Column(f"c{k}", kind, **field) for k, field in enumerate(fields)]


def values_of(column: Column, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return random values of a column, inside its domain and on its steps."""
    if column.kind == "log":
        values = np.exp(rng.normal(1, 1, n))
    elif column.kind == "periodic":
        values = (column.low or 0) + column.period * rng.random(n)
    elif column.is_id:
        values = np.zeros(n)
    elif column.categories:
        values = rng.integers(len(column.categories), size=n).astype(float)
    elif column.low is not None and column.high is not None:
        values = rng.uniform(*column.walls, n)
    elif column.low is not None or column.high is not None:
        away, (low, high) = rng.exponential(20, n), column.walls
        values = low + away if high is None else high - away
    else:
        values = rng.normal(rng.normal(0, 100), rng.uniform(0.5, 30), n)
    if column.step:
        values = snapped(values, column.lattice)
    if column.digits:
        values = significant(values, column.digits)
    low, high = column.rules.ends(column)
    values = np.clip(values, low, high)
    return column.rules.hold(values, values.astype(np.float32), column)


def random_table(kinds: list[str], seed: int, n: int = 700) -> Table:
    rng = np.random.default_rng(seed)
    columns = list(itertools.chain.from_iterable(columns_of(kind, rng) for kind in kinds))
    order = rng.permutation(len(columns))
    columns = [
        Column(**{**columns[j].to_dict(), "name": f"c{j}", "categories": columns[j].categories})
        for j in order
    ]
    return Table(tuple(columns), np.column_stack([values_of(column, n, rng) for column in columns]))


def inverse_graph(mapped: Coordinates):
    """Rows of coordinates, whose scale and shift the network before would have folded in."""
    scale, shift = graph.const(mapped.scale), graph.const(mapped.shift)
    return lambda y: mapped.graph_rows(graph.op.add(graph.op.mul(y, scale), shift))


def test_every_form_of_every_kind_has_a_graph() -> None:
    forms = {form.name for kind in KINDS.values() for form in kind.forms}
    assert set(GRAPHS) == forms | {"scores"}


CASES = [[kind] for kind in KINDS] + [list(KINDS)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kinds", CASES, ids="-".join)
def test_graphs_compute_what_numpy_does(kinds: list[str], seed: int) -> None:
    table = random_table(kinds, seed)
    mapped = Coordinates.fit(table)
    y = mapped.forward(table.values)
    again = run(mapped.graph_forward, len(table.columns), table.values)
    assert np.allclose(again, y, rtol=1e-4, atol=1e-3)
    wild = np.random.default_rng(seed).normal(0, 3, (2000, mapped.dims)).astype(np.float32)
    wild = np.concatenate([y, wild])
    x = mapped.inverse(wild)
    made = run(inverse_graph(mapped), mapped.dims, wild)
    folded = run(mapped.graph_rows, mapped.dims, wild * mapped.scale + mapped.shift)
    for j, column in enumerate(table.columns):
        for other in (made, folded):
            gap = np.abs(
                column.rules.difference(*(v[:, j].astype(float) for v in (other, x)), column)
            )
            near = gap <= 1e-5 * np.abs(x[:, j]) + 1e-5 * np.ptp(x[:, j])
            assert near.mean() > (0.995 if column.step else 0.9999), column
            one = (column.step or 0) + 2 * np.spacing(np.abs(x[:, j]))
            assert (gap <= one)[~near].all(), column
            assert (
                column.rules.hold(other[:, j], other[:, j], column).tobytes()
                == other[:, j].tobytes()
            )


@pytest.mark.parametrize("kinds", CASES, ids="-".join)
def test_the_slope_is_the_derivative_and_nothing_lies_outside_the_domain(kinds: list[str]) -> None:
    table = random_table([kind for kind in kinds if kind != "id"] or ["real"], 3)
    mapped = Coordinates.fit(table)
    x = table.values.astype(np.float64)
    step = 1e-6 * x.std(0)
    rise = np.abs(mapped.forward(x + step) - mapped.forward(x - step))[:, mapped.slot]
    found = mapped.log_slope(x)
    assert np.median(np.abs(found - np.log(rise / (2 * step)).sum(1))) < 1e-4
    singles = x.astype(np.float32)
    assert np.allclose(run(mapped.graph_log_slope, len(step), singles), found, atol=1e-3)
    for j, column in enumerate(table.columns):
        low, high = column.walls
        ends = {"log": (0, None), "periodic": (low, (low or 0) + (column.period or 0))}
        low, high = ends.get(column.kind, (low, high))
        outside = singles.copy()
        outside[0, j] = -1e6 if low is None else low - 0.6 * (column.step or 1)
        outside[1, j] = 1e6 if high is None else high + 0.6 * (column.step or 1)
        for slope in (mapped.log_slope(outside), run(mapped.graph_log_slope, len(step), outside)):
            assert (
                np.isneginf(slope).tolist() == [low is not None, high is not None] + [False] * 698
            )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kinds", CASES, ids="-".join)
def test_rows_come_back_and_wild_coordinates_stay_inside_the_domain(
    kinds: list[str], seed: int
) -> None:
    table = random_table(kinds, 10 + seed)
    mapped = Coordinates.fit(table)
    for dtype, tolerance in ((np.float32, 3e-4), (np.float64, 3e-5)):
        values = table.values.astype(dtype)
        again = mapped.inverse(mapped.forward(values))
        assert again.dtype == dtype
        for j, column in enumerate(table.columns):
            gap = np.abs(column.rules.difference(again[:, j], values[:, j], column))
            assert gap.max() <= tolerance * np.ptp(values[:, j]) + 1e-5 * np.abs(values[:, j]).max()
    wild = 30 * np.random.default_rng(seed).standard_normal((3000, mapped.dims))
    x = mapped.inverse(wild.astype(np.float32))
    assert np.isfinite(x).all()
    for j, column in enumerate(table.columns):
        assert np.array_equal(column.rules.hold(x[:, j], x[:, j], column), x[:, j]), column
        if column.step:
            exact = snapped(x[:, j].astype(float), column.lattice)
            assert np.array_equal(exact.astype(np.float32), x[:, j])
            assert not np.signbit(x[x == 0]).any()


@pytest.mark.parametrize("kind", ["real", "log", "bounded", "integer", "datetime"])
def test_numbers_stay_in_the_range_that_was_seen_without_a_pile_at_its_ends(kind: str) -> None:
    table = random_table([kind], 7, n=2000)
    wild = np.random.default_rng(0).normal(0, 1.5, (20_000, len(table.columns)))
    mapped = Coordinates.fit(table)
    seen, made = table.values, mapped.inverse(wild)
    graphed = run(inverse_graph(mapped), mapped.dims, wild)
    for rows in (made.astype(np.float32), graphed):
        assert (rows.min(0) >= seen.min(0)).all()
        assert (rows.max(0) <= seen.max(0)).all()
    free = [column.step is None and column.digits is None for column in table.columns]
    ends = (made == seen.min(0)) | (made == seen.max(0))
    assert ends[:, free].mean(0).max(initial=0) < 0.001
    lifted = Coordinates.fit(table, tails=True).inverse(wild).astype(np.float32)
    assert (lifted.max(0) > seen.max(0)).any()
    assert (lifted.min(0) < seen.min(0)).any()


@pytest.mark.parametrize("low", [-180.0, 0.0])
def test_a_rounded_circle_has_no_seam(low: float) -> None:
    column = Column("phi", "periodic", period=360.0, low=low, decimals=1)
    angles = np.round(low + np.arange(3600) / 10, 1)
    angles[:40] = low + 360.0
    held = column.rules.hold(angles, angles.astype(np.float32), column)
    assert (held[:40] == low).all()
    assert held.max() == np.float32(low + 359.9)
    mapped = Coordinates.fit(Table((column,), held[:, None]))
    y = np.random.default_rng(1).uniform(-6, 6, (50_000, 1)).astype(np.float32)
    for made in (mapped.inverse(y), run(inverse_graph(mapped), 1, y)):
        cells, counts = np.unique(made, return_counts=True)
        assert len(cells) == 3600
        assert (counts[[0, -1]] < 40).all()
        assert np.array_equal(cells, snapped(cells.astype(float), column.lattice).astype("f4"))


@pytest.mark.parametrize("kinds", CASES, ids="-".join)
def test_state_and_load_are_inverse(kinds: list[str]) -> None:
    table = random_table(kinds, 5)
    mapped = Coordinates.fit(table)
    again = Coordinates(table.columns, mapped.state())
    assert np.array_equal(again.forward(table.values), mapped.forward(table.values))
    y = mapped.forward(table.values)
    assert np.array_equal(again.inverse(y), mapped.inverse(y))


def test_rows_of_real_columns_are_the_network_s_own_output() -> None:
    values = np.random.default_rng(0).normal([1.0, 1e3], [2.0, 1e-2], (500, 2)).astype(np.float32)
    mapped = Coordinates.fit(Table((Column("a"), Column("b")), values), tails=True)
    x = graph.argument(("n", 2))
    assert mapped.graph_rows(x) is x
    y = mapped.forward(values)
    assert np.array_equal(mapped.inverse(y), y * mapped.scale + mapped.shift)


def test_a_value_that_was_never_seen_has_no_density_and_a_cell_without_coordinate_an_unknown_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    columns = (
        Column("species", "category", categories=("a", "b", "c"), missing=True),
        Column("size"),
        Column("same"),
        Column("heavy", missing=True),
    )
    values = np.stack([rng.integers(2, size=900), rng.normal(size=900), np.full(900, 7.5)], 1)
    heavy = np.where(rng.random(900) < 0.3, 0, rng.normal(5, 1, 900))
    table = np.column_stack([values, heavy]).astype(np.float32)
    table[:50, 0], table[50:100, 3] = np.nan, np.nan
    mapped = Coordinates.fit(Table(columns, table))
    rows = np.array(
        [
            [0, 0.5, 7.5, 5.25],
            [np.nan, 0.5, 7.5, 5.25],
            [0.5, 0.5, 7.5, 5.25],
            [0, 0.5, 7.25, 5.25],
            [0, 0.5, 7.5, 0],
            [0, 0.5, 7.5, np.nan],
        ],
        np.float32,
    )
    for slope in (mapped.log_slope(rows), run(mapped.graph_log_slope, 4, rows)):
        assert np.allclose(slope[:2], -np.log(mapped.scale).sum(), atol=1e-6)
        assert np.isneginf(slope[2:4]).all()
        assert np.isnan(slope[4:]).all()


def test_coordinates_are_standardised_and_constant_columns_leave(table: Table) -> None:
    y = Coordinates.fit(table).forward(table.values)
    assert y.shape[1] == len(table.columns) - 1
    assert np.allclose(y.mean(0), 0, atol=1e-3)
    assert np.allclose(y.std(0), 1, atol=1e-2)


def test_any_coordinates_come_back_inside_every_domain(table: Table) -> None:
    mapped = Coordinates.fit(table)
    wild = 30 * np.random.default_rng(1).standard_normal((20_000, mapped.dims), np.float32)
    columns = dict(zip((c.name for c in table.columns), mapped.inverse(wild).T, strict=True))
    assert np.isfinite(np.stack(list(columns.values()))).all()
    assert (columns["pt"] > 0).all()
    assert ((columns["phi"] >= -180) & (columns["phi"] < 180)).all()
    assert ((columns["share"] >= 0) & (columns["share"] <= 1)).all()
    assert (columns["depth"] >= 2).all()
    assert set(np.unique(columns["species"])) == {0.0, 1.0, 2.0}
    assert (columns["same"] == 7.5).all()


@pytest.mark.parametrize("centre", [0.0, 90.0, 179.0])
def test_the_seam_lies_where_the_data_is_emptiest(centre: float) -> None:
    rng = np.random.default_rng(0)
    angles = (centre + 25 * rng.standard_normal(4000) + 180) % 360 - 180
    column = Column("phi", "periodic", period=360.0, low=-180.0)
    mapped = Coordinates.fit(Table((column,), angles[:, None].astype(np.float32)))
    near = (centre + np.array([[0.1], [-0.1], [90.0]]) + 180) % 360 - 180
    y = mapped.forward(near.astype(np.float32))
    assert abs(float(y[0, 0] - y[1, 0])) < 0.02 < 1 < abs(float(y[0, 0] - y[2, 0]))


@pytest.mark.parametrize("low", [0.0, -np.pi, 5.0])
def test_a_period_s_end_is_never_reached(low: float) -> None:
    column = Column("phi", "periodic", period=2 * np.pi, low=float(np.float32(low)))
    values = np.float32(low + np.linspace(0, 6.28, 300))[:, None]
    mapped = Coordinates.fit(Table((column,), values))
    y = np.linspace(-40, 40, 200_001, dtype=np.float32)[:, None]
    for x in (mapped.inverse(y), run(inverse_graph(mapped), 1, y)):
        assert (x >= np.float32(low)).all()
        assert (x.astype(np.float64) < np.float64(np.float32(low)) + 2 * np.pi).all()


def test_rows_that_all_agree_are_one_coordinate() -> None:
    table = Table((Column("a"), Column("b")), np.full((10, 2), 3.0, np.float32))
    assert np.array_equal(there_and_back(table), table.values)


def test_dequantised_steps_round_back(table: Table) -> None:
    mapped = Coordinates.fit(table)
    noisy = mapped.dequantise(table.values, np.random.default_rng(0))
    stepped = [table.names.index(name) for name in ("count", "depth")]
    assert (noisy[:, stepped] != table.values[:, stepped]).mean() > 0.99
    assert np.array_equal(np.rint(noisy[:, stepped[0]]), table.values[:, stepped[0]])
    again = mapped.inverse(mapped.forward(noisy))
    assert (again[:, stepped] == table.values[:, stepped]).mean() > 0.999
    others = [j for j in range(len(table.columns)) if j not in stepped]
    assert np.array_equal(noisy[:, others], table.values[:, others])


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
    mapped = Coordinates.fit(Table((column,), values[:, None]))
    x = mapped.inverse(np.linspace(-30, 30, 100_001, dtype=np.float32)[:, None])
    assert np.array_equal(x, (np.rint(x.astype(np.float64) / step) * step).astype(np.float32))
    assert not np.signbit(x[x == 0]).any()
    assert least is None or x.min() == np.float32(least)
    assert greatest is None or x.max() == np.float32(greatest)
    assert set(np.float32(np.round(values, 6))) <= set(
        np.float32(np.round(x[:, 0].astype(np.float64), 6))
    )


def test_a_new_form_needs_its_graph_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cube(Form):
        name = "cube"

        def coordinate(self, x: Raw, p: Parameters) -> Raw:
            return np.asarray(np.cbrt(x))

        def inverse(self, y: Raw, p: Parameters) -> Raw:
            return y**3

    class Volume(Kind):
        forms = (Cube(),)

        def form(self, column: Column) -> Form:
            return self.forms[0]

    def root(x: graph.Var, p: Parameters) -> graph.Var:
        size = graph.op.pow(graph.op.abs(x), graph.const(1 / 3))
        return graph.op.mul(graph.op.sign(x), size)

    def power(f: graph.Var, p: Parameters) -> graph.Var:
        return graph.op.mul(f, graph.op.mul(f, f))

    monkeypatch.setitem(KINDS, "volume", Volume())
    monkeypatch.setitem(GRAPHS, "cube", Graphs(root, power, root))  # no slope is asked for
    values = np.random.default_rng(0).normal(0, 9, (500, 2)).astype(np.float32)
    mapped = Coordinates.fit(Table((Column("v", "volume"), Column("x")), values))
    y = mapped.forward(values)
    assert np.allclose(run(mapped.graph_forward, 2, values), y, atol=1e-5)
    assert np.allclose(run(inverse_graph(mapped), 2, y), values, rtol=1e-4, atol=1e-5)
    assert np.allclose(mapped.inverse(y), values, rtol=1e-4, atol=1e-5)


def test_numbers_of_ten_decades_are_as_fine_as_they_were() -> None:
    values = np.exp(2.5 * np.random.default_rng(0).standard_normal((4000, 1))).astype(np.float32)
    values *= np.float32(1e4)
    mapped = Coordinates.fit(Table((Column("x", "log"),), values))
    y = mapped.forward(values)
    for x in (mapped.inverse(y), run(inverse_graph(mapped), 1, y)):
        assert len(np.unique(x)) > 3900
        np.testing.assert_allclose(x, values, rtol=1e-4)


def test_long_tails_are_bent_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    tails = {
        "factors": np.exp(2 * rng.standard_normal(n)),
        "from a wall": np.exp(2 * rng.standard_normal(n)) + 3,
        "both sides": np.sinh(2 * rng.standard_normal(n)) + 50,
    }
    plain = {
        "normal": rng.standard_normal(n),
        "level": rng.uniform(-1, 1, n),
        "two": rng.standard_normal(n) + rng.choice([-5, 5], n),
        "rising": rng.gamma(2.0, 1.0, n),
        "a factor of ten": np.exp(0.8 * rng.standard_normal(n)),
    }
    columns = [Column(name) for name in [*tails, *plain]]
    columns[1] = Column("from a wall", "bounded", low=3.0)
    values = np.column_stack([*tails.values(), *plain.values()]).astype(np.float32)
    mapped = Coordinates.fit(Table(tuple(columns), values))
    bent = {mapped.columns[j].name for j in mapped.index[~np.isnan(mapped.bends[0])]}
    assert bent == set(tails)
    y = mapped.forward(values)
    assert np.abs(mapped.inverse(y) - values).max() < 1e-3 * np.abs(values).max()
    again = Coordinates(columns, mapped.state())
    assert np.array_equal(again.forward(values), y)
    d = len(columns)
    assert np.allclose(run(mapped.graph_forward, d, values), y, atol=1e-4)
    wild = 3 * rng.standard_normal((3000, d)).astype(np.float32)
    x = mapped.inverse(wild)
    assert (x.min(0) >= values.min(0)).all()
    assert (x.max(0) <= values.max(0)).all()
    np.testing.assert_allclose(run(inverse_graph(mapped), d, wild), x, rtol=1e-3, atol=1e-3)
    wide, step = values.astype(np.float64), 1e-5 * values.std(0)
    for j in np.flatnonzero(np.isin([column.name for column in columns], list(tails))):
        part = Coordinates.fit(Table((columns[j],), values[:, [j]]))
        near = [part.forward(wide[:, [j]] + side * step[j]) for side in (-1, 1)]
        slope = np.log((near[1] - near[0])[:, 0] / (2 * step[j]))
        inside = np.abs(part.log_slope(wide[:, [j]]) - slope) < 0.01
        assert inside.mean() > 0.99
        graph_slope = run(part.graph_log_slope, 1, values[:, [j]])
        np.testing.assert_allclose(graph_slope, part.log_slope(values[:, [j]]), atol=1e-3)

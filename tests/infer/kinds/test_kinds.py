"""What holds for every kind of column, and for one that is new."""

import dataclasses

import numpy as np
import pytest
from suffixes import READY

from scgan_infer.columns import ALWAYS, Column
from scgan_infer.judging.distances import Space, features
from scgan_infer.kinds import KINDS, BadCellError, Form, Kind
from scgan_infer.kinds.base import refuse
from scgan_infer.rows.formats import open_writer, read_table
from scgan_infer.rows.intake import Intake

RNG = np.random.default_rng(4)
N = 900
EXAMPLES = {
    "real": [
        (Column("x"), RNG.normal(3, 5, N)),
        (Column("x", decimals=1), np.round(RNG.normal(3, 5, N), 1)),
        (Column("x", anchor=2459000.0), RNG.normal(0, 5, N)),
    ],
    "log": [
        (Column("x", "log"), np.exp(RNG.normal(0, 2, N))),
        (Column("x", "log", decimals=2), np.ceil(RNG.exponential(99, N)) / 100),
    ],
    "periodic": [
        (Column("x", "periodic", period=360.0), RNG.uniform(0, 360, N)),
        (Column("x", "periodic", period=2 * np.pi, low=-np.pi), RNG.uniform(-np.pi, np.pi, N)),
    ],
    "bounded": [
        (Column("x", "bounded", low=0.0, high=2.0), RNG.uniform(0, 2, N)),
        (Column("x", "bounded", low=-1.0), RNG.exponential(3, N) - 1),
        (Column("x", "bounded", high=5.0, decimals=1), 5 - np.round(RNG.exponential(3, N), 1)),
    ],
    "integer": [
        (Column("x", "integer"), RNG.poisson(30, N)),
        (Column("x", "integer", low=0.0, high=9.0), RNG.integers(10, size=N)),
        (Column("x", "integer", anchor=1.6e9, low=1.6e9), RNG.poisson(30, N)),
    ],
    "category": [
        (Column("x", "category", categories=("a", "b c", "d,e")), RNG.integers(3, size=N)),
        (Column("x", "category", categories=("2007", "2008")), RNG.integers(2, size=N)),
    ],
    "id": [
        (Column("x", "id", low=7.0), np.zeros(N)),
        (Column("x", "id", low=1.0, pattern="PID-0000"), np.zeros(N)),
    ],
    "datetime": [
        (
            Column("x", "datetime", anchor=anchor, resolution=unit, pattern=pattern),
            RNG.poisson(300, N),
        )
        for anchor, unit, pattern in (
            (500.0, "M", "YYYY-MM"),
            (18_000.0, "D", "YYYY/MM/DD"),
            (430_000.0, "h", "YYYY-MM-DD hh:mm"),
            (1.6e9, "s", "YYYY-MM-DDThh:mm:ss+05:30"),
            (1.6e12, "ms", "YYYY-MM-DD hh:mm:ss.fffZ"),
        )
    ],
}
CASES = [
    pytest.param(*case, id=f"{kind}-{k}")
    for kind in EXAMPLES
    for k, case in enumerate(EXAMPLES[kind])
]


def walk(column, values, folder):
    """Hold a kind to its contract, with values inside the column's domain."""
    kind = column.rules
    assert Column.from_dict(column.to_dict()) == column
    assert set(column.to_dict()) - {"name", "kind", "unit"} <= kind.fields
    exact = values.astype(np.float64)
    assert len({kind.spell(value, column) for value in set(values.tolist())}) == len(set(values))
    held = values if kind.named else kind.hold(values, values, column)
    assert np.array_equal(held, values)
    found = features(exact[:, None], [column])
    assert len(found) == len(values)
    assert np.isfinite(found).all()
    space = Space.fit(exact[:, None], (column,))
    parts = space.standardise(exact[:, None])
    assert kind.transport(parts, parts[::-1], space.centre, float(space.spread[0])) < 1e-9
    assert not kind.difference(exact, exact, column).any()
    edges = kind.edges(column, exact, 30)
    assert (np.diff(edges) > 0).all()
    assert ((exact >= edges[0]) & (exact <= edges[-1])).mean() > 0.99

    form = kind.form(column)
    assert form.name in {other.name for other in kind.forms}
    p = form.parameters([column], np.float32([form.fit(column, values)]))
    again = form.inverse(form.coordinate(exact[:, None], p), p)[:, 0]
    assert np.abs(kind.difference(again, exact, column)).max() <= 1e-4 * np.ptp(exact)
    wild = form.inverse(np.linspace(-200, 200, 999, dtype=np.float32)[:, None], p)[:, 0]
    if column.step is None:
        assert np.array_equal(kind.hold(wild, wild, column), wild)

    cells = kind.cells(values, column)
    assert cells.dtype == np.dtype(column.storage.replace("text", "object"))
    for suffix in READY:
        path = folder / f"rows{suffix}"
        with open_writer(path, (column,), len(values)) as writer:
            writer.write(values[:, None])
        back = read_table(path, columns=(column,))
        assert np.array_equal(back.values[:, 0], values), suffix
    assert np.array_equal(read_table({"x": cells}, columns=(column,)).values[:, 0], values)


@pytest.mark.parametrize(("column", "values"), CASES)
def test_every_kind_keeps_its_contract(column, values, tmp_path):
    walk(column, values.astype(np.float32), tmp_path)


def test_every_kind_has_an_example_and_every_field_a_user():
    assert set(EXAMPLES) == set(KINDS)
    used = set.union(*(set(kind.fields) for kind in KINDS.values()))
    assert used == {field.name for field in dataclasses.fields(Column)} - ALWAYS


@pytest.mark.parametrize("name", KINDS)
def test_fields_that_a_kind_does_not_use_are_refused(name):
    column, _ = EXAMPLES[name][0]
    others = {"period": 3.0, "low": 0.0, "high": 1.0, "slack": 0.1, "decimals": 1}
    for field in others.keys() - KINDS[name].fields:
        with pytest.raises(ValueError, match=f"column 'x': {field} is for columns that are"):
            dataclasses.replace(column, **{field: others[field]})


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        (Column("x", "log"), 0.0, "0 is not positive"),
        (Column("x", "bounded", low=0.0, slack=0.5), -0.6, r"-0.6 is outside its walls \[0.0, \]"),
        (Column("x", "integer"), 1.5, "1.5 is not a whole number up to 2"),
        (Column("x", "integer", high=3.0), 4.0, "4 is outside its walls"),
        (
            Column("x", "category", categories=("5", "7")),
            6.0,
            r"6 stands for none of its 2 .* \(5 to 7\)",
        ),
    ],
)
def test_the_first_cell_outside_a_domain_is_named(column, cell, words):
    inside = {"5": 5.0}.get(next(iter(column.categories), ""), 1.0)
    intake = Intake("x", column)
    intake.take(np.array([inside, inside]))
    with pytest.raises(BadCellError, match=words) as error:
        intake.take(np.array([inside, cell, cell]))
    assert error.value.row == 3


class Root(Form):
    """f(x) = sqrt x."""

    name = "root"

    def coordinate(self, x, p):
        return np.sqrt(x)

    def inverse(self, y, p):
        return np.minimum(np.square(np.clip(y, 0, 1e6)), np.float32(1e30))


class Area(Kind):
    """A new kind: what can't be negative, and is a square."""

    marks = ("high",)
    fields = frozenset({"high"})
    forms = (Root(),)

    def check(self, column):
        return "" if column.high is None or column.high > 0 else "areas are above 0"

    def guess(self, evidence):
        return {"high": None} if evidence.low == 0.25 else None

    def hold(self, raw, values, column):
        refuse(values < 0, raw, "is less than nothing")
        return values

    def form(self, column):
        return self.forms[0]


def test_a_new_kind_is_a_class_and_a_line(monkeypatch, tmp_path):
    monkeypatch.setitem(KINDS, "area", Area())
    values = (0.25 + RNG.exponential(4, N)).astype(np.float32)
    values[0] = 0.25
    walk(Column("x", "area"), values, tmp_path)
    assert read_table({"x": values}).columns == (Column("x", "area"),)
    assert read_table({"x": values}, overrides={"x": {"kind": "area"}}).columns[0].kind == "area"
    with pytest.raises(ValueError, match="column 'x': areas are above 0"):
        Column("x", "area", high=-1.0)
    intake = Intake("x", None, {"kind": "area"})
    with pytest.raises(BadCellError, match="-1 is less than nothing; remove the row"):
        intake.take(np.array([-1.0]))

"""Kinds are guessed where a wrong guess is unlikely."""

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.errors import UsageError
from scgan_infer.kinds import KINDS
from scgan_infer.kinds.base import snapped
from scgan_infer.kinds.guessing import Evidence, decimals_of
from scgan_infer.rows.formats import open_writer, read_table

N = 20_000


def guessed(values):
    values = np.asarray(values, np.float32)
    evidence = Evidence(values, float(values.min()), float(values.max()), decimals_of(values))
    guesses = {name: kind.guess(evidence) for name, kind in reversed(KINDS.items())}
    return next({"kind": name, **found} for name, found in guesses.items() if found is not None)


def bump(rng, share):
    """A wide Gaussian, and a narrow one beyond its upper end."""
    return np.where(
        rng.random(N) < share, 10 + 0.1 * rng.standard_normal(N), rng.standard_normal(N)
    )


NO_WALLS = {
    "gaussian": lambda rng: rng.standard_normal(N),
    "student": lambda rng: rng.standard_t(3, N),
    "two peaks": lambda rng: rng.choice([-1, 1], N) + 0.01 * rng.standard_normal(N),
    "laplace": lambda rng: rng.laplace(size=N),
    "small bump": lambda rng: bump(rng, 0.003),
    "bump": lambda rng: bump(rng, 0.03),
    "soft edge": lambda rng: rng.random(N) + 0.01 * rng.standard_normal(N),
    "triangle": lambda rng: rng.random(N) + rng.random(N),
    "noisy circle": lambda rng: (
        2 * np.cos(2 * np.pi * rng.random(N)) + 0.1 * rng.standard_normal(N)
    ),
    "rounded gaussian": lambda rng: np.round(rng.standard_normal(N), 1),
}
WALLS = {
    "uniform": (lambda rng: rng.random(N), 0.0, 1.0),
    "exponential": (lambda rng: 2 + rng.exponential(1, N), 2.0, None),
    "sine": (lambda rng: np.sin(2 * np.pi * rng.random(N)), -1.0, 1.0),
    "cut gaussian": (lambda rng: (lambda x: x[x < 1])(rng.standard_normal(N)), None, 1.0),
    "zeros": (lambda rng: np.maximum(rng.standard_normal(N), 0), 0.0, None),
    "saturated": (lambda rng: np.minimum(rng.standard_normal(N), 2.5), None, 2.5),
}


@pytest.mark.parametrize("name", NO_WALLS)
@pytest.mark.parametrize("seed", range(5))
def test_smooth_tails_have_no_walls(name, seed):
    values = NO_WALLS[name](np.random.default_rng(seed))
    assert guessed(values)["kind"] == "real"
    assert guessed(-values)["kind"] == "real"


@pytest.mark.parametrize("name", WALLS)
@pytest.mark.parametrize("sign", [1, -1])
def test_walls_are_found_where_they_are(name, sign):
    make, low, high = WALLS[name]
    found = [guessed(sign * make(np.random.default_rng(seed))) for seed in range(10)]
    expected = (
        (low, high) if sign > 0 else tuple(None if wall is None else -wall for wall in (high, low))
    )
    assert sum((each.get("low"), each.get("high")) == expected for each in found) >= 8


@pytest.mark.parametrize("n", [300, 500, 900, 5000])
def test_walls_are_found_in_few_rows_and_on_both_sides(n):
    walls = []
    for seed in range(40):
        found = guessed(np.pi * np.random.default_rng(seed).uniform(-1, 1, n))
        walls.append((found.get("low"), found.get("high")))
        smooth = guessed(np.random.default_rng(seed).standard_normal(n))
        assert smooth["kind"] == "real"
    both = [low is not None and high is not None for low, high in walls]
    assert sum(both) >= 39
    assert sum(low == -high for low, high in walls if None not in (low, high)) >= 30


def test_a_guessed_wall_holds_for_other_rows_of_the_same_kind():
    rng = np.random.default_rng(0)
    crossed = 0
    for _ in range(100):
        first, others = np.pi * rng.uniform(-1, 1, (2, 5000))
        found = guessed(first)
        wall = found["high"] if found.get("high") is not None else np.inf
        crossed += np.max(others) > wall
        assert np.max(others) < wall + found.get("slack", 0)
    assert crossed <= 3


def test_few_repeated_whole_numbers_are_integers():
    rng = np.random.default_rng(0)
    assert guessed(rng.poisson(3, 500))["kind"] == "integer"
    assert guessed(np.arange(20))["kind"] == "real"
    assert guessed(rng.integers(0, 3, 500) + 0.5)["kind"] != "integer"


def test_many_whole_numbers_are_integers_with_the_walls_they_have():
    rng = np.random.default_rng(0)
    assert guessed(1000 * rng.standard_normal(3000).round(3)) == {"kind": "integer"}
    assert guessed(np.maximum(100 * rng.standard_normal(3000), 0).round()) == {
        "kind": "integer",
        "low": 0.0,
        "high": None,
        "slack": 0.0,
    }
    sharp = guessed(rng.integers(10, 1000, 30_000))
    assert (sharp["kind"], sharp["low"], sharp["high"]) == ("integer", 10.0, 999.0)
    assert guessed(2.0**25 + 4 * rng.integers(0, 1000, 3000))["kind"] != "integer"


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        (lambda rng: rng.standard_normal(3000).round(1), 1),
        (lambda rng: rng.exponential(1, 3000).round(2), 2),
        (lambda rng: rng.standard_normal(3000).round(4), None),
        (lambda rng: 1e6 + rng.random(3000), None),
        (lambda rng: rng.choice(rng.standard_normal(20), 3000), None),
        (lambda rng: rng.integers(0, 8, 3000) / 7, None),
        (lambda rng: rng.integers(0, 8, 3000) / 8 + rng.integers(0, 2, 3000) / 1000, 3),
    ],
)
def test_decimals_are_those_that_repeat(values, decimals):
    assert guessed(values(np.random.default_rng(0))).get("decimals") == decimals


@pytest.mark.parametrize(("low", "high"), [(0, 30_000), (50_000, 1_000_000), (1, 1e9)])
def test_decimals_of_money_are_found_however_large_some_of_it_is(low, high):
    size = np.exp(np.random.default_rng(0).uniform(np.log(low + 1), np.log(high), 1000))
    assert read_table({"x": np.round(size, 2)}).columns[0].decimals == 2
    for other in (size, size.astype(np.float32).astype(np.float64)):
        assert read_table({"x": other}).columns[0].decimals is None


def test_decimals_of_few_rows_are_found_where_chance_is_no_reason():
    rng = np.random.default_rng(0)
    for rows, decimals in ((9, 3), (80, 3), (8, None)):
        cells = np.round(rng.standard_normal(rows), 3)
        assert read_table({"x": cells}).columns[0].decimals == decimals
    assert read_table({"x": rng.standard_normal(80)}).columns[0].decimals is None
    assert read_table({"x": np.round(rng.uniform(2e5, 2e6, 80), 3)}).columns[0].decimals is None


GRIDS = {
    "quarters": (lambda k: k * 0.25, 0.25, 0.0),
    "thirds": (lambda k: k / 3, 1 / 3, 0.0),
    "fives": (lambda k: k * 5, 5.0, 0.0),
    "sevens from 3 on": (lambda k: k * 7 + 3, 7.0, 3.0),
    "binary": (lambda k: k / 64, 1 / 64, 0.0),
    "beside decimals": (lambda k: k * 0.05 + 0.02, 0.05, 0.02),
    "a converter's": (lambda k: k * 0.0125 + 0.003, 0.0125, 0.003),
    "no fraction": (lambda k: k * np.pi / 4, np.pi / 4, 0.0),
}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("rows", [60, 3000])
def test_other_grids_are_found_and_generated(name, rows):
    make, step, origin = GRIDS[name]
    values = make(np.random.default_rng(0).integers(-300, 2000, rows)).astype(np.float32)
    (column,) = read_table(values[:, None]).columns
    assert np.isclose(column.grid, step, rtol=1e-6)
    assert np.isclose(column.origin, origin, atol=1e-4)
    exact = snapped(values.astype(np.float64), column.lattice)
    assert np.allclose(exact, values, atol=2 * np.spacing(values.max()))
    assert Column.from_dict(column.to_dict()) == column


def test_no_grid_is_found_by_chance():
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = rng.standard_normal(int(rng.integers(4, 500))) * 10 ** rng.uniform(-3, 3)
        assert "grid" not in guessed(values)
        assert "grid" not in guessed(rng.integers(0, 50, int(rng.integers(4, 50))))
    assert "grid" not in guessed([5, 10, 15, 20])
    spoilt = np.append(5.0 * rng.integers(0, 100, 500), 7)
    assert "grid" not in guessed(spoilt)


def test_a_grid_can_be_said():
    rows = np.random.default_rng(0).standard_normal((300, 1))
    (column,) = read_table(rows, overrides={"x0": {"grid": 0.2, "kind": "real"}}).columns
    assert column.step == 0.2
    with pytest.raises(UsageError, match="only one of decimals, digits and grid"):
        read_table(rows, overrides={"x0": {"kind": "real", "grid": 0.2, "digits": 2}})
    with pytest.raises(UsageError, match="whole numbers"):
        read_table(rows.round(), overrides={"x0": {"kind": "integer", "grid": 2.5}})


def test_walls_of_a_rounded_column_are_rounded():
    found = guessed(np.random.default_rng(0).uniform(0.5, 0.9, 20_000).round(2))
    assert (found["low"], found["high"], found["decimals"]) == (0.5, 0.9, 2)


def test_decimals_of_a_file_and_of_what_the_user_says(tmp_path):
    cells = np.random.default_rng(0).exponential(1, 500).round(2) + 0.01
    path = tmp_path / "rows.csv"
    path.write_text("a\n" + "".join(f"{cell:.2f}\n" for cell in cells))

    def decimals(**settings):
        return read_table(path, overrides={"a": settings} if settings else None).columns[0].decimals

    assert decimals() == decimals(kind="log") == decimals(kind="bounded") == decimals(low=0) == 2
    assert decimals(kind="real") is None
    assert decimals(period=9) == 2
    assert decimals(decimals=1) == decimals(kind="real", decimals=1) == 1
    (known,) = read_table(path, overrides={"a": {"kind": "log", "decimals": 3}}).columns
    assert read_table(path, columns=[known]).columns == (known,)


def test_a_constant_column_is_real():
    assert guessed(np.full(5000, 7.0)) == {"kind": "real"}


def kinds(path, **overrides):
    return [
        (column.kind, column.period, column.low)
        for column in read_table(path, overrides=overrides).columns
    ]


def test_text_becomes_sorted_categories(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,k\n" + "".join(f"{i}.5,{'zxy'[i % 3]}\n" for i in range(30)))
    table = read_table(path)
    assert table.columns[1].categories == ("x", "y", "z")
    assert table.values[:3, 1].tolist() == [2, 0, 1]


def test_categories_named_by_numbers_keep_their_spelling_and_order_by_size(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("k\n10\n9\n010\n9\n")
    table = read_table(path, overrides={"k": {"kind": "category"}})
    assert table.columns[0].categories == ("9", "010", "10")
    assert table.values[:, 0].tolist() == [2, 0, 1, 0]


@pytest.mark.parametrize(
    ("cells", "low", "values"),
    [
        ((0, 90, 359.5), 0, (0, 90, 359.5)),
        ((-180, 90, 179.5), -180, (-180, 90, 179.5)),
        ((-180, 90, 180), -180, (-180, 90, -180)),
        ((0, 90, 360), 0, (0, 90, 0)),
        ((-90, 720, 300), 0, (270, 0, 300)),
    ],
)
def test_a_periodic_column_begins_where_its_values_do(tmp_path, cells, low, values):
    path = tmp_path / "rows.csv"
    path.write_text("phi\n" + "".join(f"{cell}\n" for cell in cells))
    table = read_table(path, overrides={"phi": {"kind": "periodic", "period": 360.0}})
    assert table.columns[0].low == low
    assert table.values[:, 0].tolist() == list(values)


def test_periodic_values_stay_inside_in_float32(tmp_path):
    turn = 2 * np.pi
    edge = np.array(
        [-np.pi, np.nextafter(np.pi, 0), np.pi, -np.pi - 1e-9, 3.1415927, -3.1415927, 100.0, -1e-12]
    )
    np.save(tmp_path / "rows.npy", edge)
    for overrides in ({"period": turn}, {"period": turn, "low": -np.pi}):
        table = read_table(tmp_path / "rows.npy", overrides={"x0": overrides})
        low, inside = table.columns[0].low, table.values[:, 0].astype(np.float64)
        assert ((low <= inside) & (inside < low + turn)).all()
        np.testing.assert_allclose(np.exp(1j * inside), np.exp(1j * edge), atol=1e-6)


def test_what_the_user_says_wins(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "1,0.5\n2,0.25\n" * 10)
    assert kinds(path)[0][0] == "integer"
    assert kinds(path, a={"kind": "real"})[0][0] == "real"
    assert kinds(path, b={"kind": "log"})[1][0] == "log"
    assert kinds(path, b={"low": 0})[1] == ("bounded", None, 0)
    assert kinds(path, b={"kind": "bounded"})[1] == ("bounded", None, 0.25)
    assert kinds(path, b={"period": 1})[1] == ("periodic", 1, 0)


def test_a_guessed_wall_lets_a_leak_through_and_a_set_one_none(tmp_path):
    rng = np.random.default_rng(0)
    train, other = tmp_path / "train.npy", tmp_path / "other.npy"
    np.save(train, rng.random((5000, 1)))
    np.save(other, np.array([[0.5], [1.001]]))
    (column,) = read_table(train).columns
    assert (column.low, column.high) == (0.0, 1.0)
    assert read_table(other, columns=[column]).values[:, 0].tolist() == [0.5, 1.0]
    (column,) = read_table(train, overrides={"x0": {"low": 0.0, "high": 1.0}}).columns
    with pytest.raises(Exception, match=r"row 2: 1\.001 is outside its walls"):
        read_table(other, columns=[column])


def test_significant_digits_and_decimals_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    readings = np.array([float(f"{value:.5g}") for value in np.exp(rng.normal(0, 2, 3000))])
    column = read_table({"x": readings}).columns[0]
    assert (column.digits, column.decimals) == (5, None)
    wide = np.array([float(f"{value:.5g}") for value in np.exp(rng.normal(0, 1.5, 3000))])
    assert read_table({"x": wide}).columns[0].digits == 5
    prices = np.round(np.exp(rng.normal(5, 1, 3000)), 2)
    assert read_table({"x": prices}).columns[0].decimals == 2
    free = read_table({"x": np.exp(rng.normal(0, 2, 3000))}).columns[0]
    assert (free.digits, free.decimals) == (None, None)
    with open_writer(tmp_path / "rows.csv", (column,)) as writer:
        writer.write(readings.astype(np.float32)[:, None])
    texts = (tmp_path / "rows.csv").read_text().split()[1:]
    assert [float(text) for text in texts] == readings.tolist()

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cases import Watcher

from scgan_infer.columns import Column, Table
from scgan_train.coordinates import discrete
from scgan_train.coordinates.discrete import Step
from scgan_train.coordinates.given import Conditions, ConditionVars
from scgan_train.coordinates.transform import SCORES, Coordinates
from scgan_train.fitting.loop import fit, generator_for
from scgan_train.graph import argument, const, model, op
from scgan_train.latents.chain import Chain
from scgan_train.latents.chain_stage import ChainStage

GONE = np.float32(np.nan)


def table(n: int = 4000) -> Table:
    """A category, a few numbers, a spike at 0 with missing cells beside it, and a plain column."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, n, p=[0.6, 0.3, 0.1]).astype(np.float32)
    few = 10.0 * kind + rng.integers(0, 2, n)
    gain = np.where(rng.random(n) < 0.8, 0, np.exp(rng.standard_normal(n)))
    gain[(kind == 2) & (rng.random(n) < 0.5)] = np.nan
    plain = rng.standard_normal(n) + kind
    columns = (
        Column("kind", "category", categories=("a", "b", "c")),
        Column("few", "integer"),
        Column("gain", missing=True),
        Column("plain"),
    )
    return Table(columns, np.column_stack([kind, few, gain, plain]).astype(np.float32))


def test_categories_few_numbers_spikes_and_missing_cells_are_steps() -> None:
    steps = {step.column: step for step in discrete.find(table())}
    assert sorted(steps) == [0, 1, 2]
    assert steps[0].values.tolist() == [0, 1, 2]
    assert steps[1].values.tolist() == [0, 1, 10, 11, 20, 21]
    assert steps[2].numbers.tolist() == [0]
    assert np.isnan(steps[2].values[-1])
    assert [steps[j].rest for j in range(3)] == [False, False, True]
    assert [step.size for step in discrete.find(table())] == [3, 3, 6]


def test_a_table_of_plain_numbers_has_no_steps() -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 2)).astype(np.float32)
    assert discrete.find(Table((Column("x"), Column("y")), rows)) == ()


def test_a_smooth_count_has_no_heavy_values_and_a_spike_of_half_a_percent_is_one() -> None:
    rng = np.random.default_rng(1)
    counts = np.bincount(rng.poisson(20, 20_000))
    assert not discrete.heavy(counts).any()
    counts[3] += 200
    assert np.flatnonzero(discrete.heavy(counts)).tolist() == [3]


@pytest.mark.parametrize(("rows", "repeated"), [(3000, 17), (300, 10), (80, 6), (17, 6)])
def test_a_value_that_repeats_among_others_that_do_not_is_heavy(rows: int, repeated: int) -> None:
    counts = np.ones(rows - repeated + 1, np.int64)
    counts[5] = repeated
    assert np.flatnonzero(discrete.heavy(counts)).tolist() == [5]


def test_amounts_that_hardly_repeat_beside_a_heavy_zero_are_not_the_only_ones_to_be_drawn() -> None:
    amounts = np.random.default_rng(0).lognormal(5, 1, 16).round(2)
    column = np.append(np.zeros(184), amounts).astype(np.float32)
    (step,) = discrete.find(Table((Column("amount", decimals=2),), column[:, None]))
    assert step.values.tolist() == [0]
    assert step.rest


@pytest.mark.parametrize("rows", [50, 80, 300, 1000])
def test_few_numbers_of_a_smooth_distribution_are_not_heavy(rows: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        drawn = rng.integers(60, size=rows), rng.poisson(30, rows), rng.geometric(0.05, rows)
        for values in drawn:
            assert not discrete.heavy(np.unique(values, return_counts=True)[1]).any()


STEPS = [
    Step(0, np.array([0, 1, 2], np.float32), rest=False),
    Step(0, np.array([0, 1, 2, GONE], np.float32), rest=False),
    Step(0, np.array([-1.5, 4, 9], np.float32), rest=False),
    Step(0, np.array([0, 40, GONE], np.float32), rest=True),
    Step(0, np.array([GONE], np.float32), rest=True),
]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_s_graph_is_the_step(step: Step) -> None:
    cells = np.array([0, 1, 2, 40, -1.5, 4, 9, 3.3], np.float32)
    if np.isnan(step.values).any():
        cells = np.append(cells, GONE)
    chosen = step.choose(cells)
    x = argument(("n",))
    other = argument(("n",))
    choice = step.choose_graph(x)
    axis = op.const(np.zeros(1, np.int64))
    filled = step.fill_graph(op.unsqueeze(other, axis), op.unsqueeze(choice, axis))
    graph = model({"x": x, "other": other}, {"choice": choice, "filled": op.squeeze(filled, axis)})
    others = np.arange(len(cells), dtype=np.float32) + 100
    ours, rows = onnxruntime.InferenceSession(graph).run(None, {"x": cells, "other": others})
    assert ours.tolist() == chosen.tolist()
    np.testing.assert_array_equal(rows, step.fill(others, chosen))


def test_cells_that_the_head_draws_come_back_and_have_noise_for_a_coordinate() -> None:
    rows = table()
    coordinates = Coordinates.fit(rows)
    assert [rows.columns[j].name for j in coordinates.index] == ["gain", "plain"]
    rng = np.random.default_rng(2)
    y, choice = coordinates.forward(rows.values, rng), coordinates.choose(rows.values)
    again = coordinates.inverse(y, choice)
    np.testing.assert_allclose(again, rows.values, rtol=1e-5, atol=1e-5)
    drawn = ~(rows.values[:, 2] > 0)
    assert abs(y[drawn, 0].std() - 1) < 0.05
    assert (coordinates.forward(rows.values)[drawn, 0] == 0).all()


def test_a_graph_holds_finite_numbers_where_the_first_row_misses_a_cell_that_the_head_draws() -> (
    None
):
    rows = table()
    rows.values[0, 1] = np.nan
    columns = (rows.columns[0], replace(rows.columns[1], missing=True), *rows.columns[2:])
    coordinates = Coordinates.fit(Table(columns, rows.values))
    y, choice = coordinates.forward(rows.values), coordinates.choose(rows.values)
    f, picked = argument(("n", y.shape[1])), argument(("n", len(columns) - 1), np.int64)
    own = [op.gather(picked, const(j, np.int64), axis=1) for j in range(len(columns) - 1)]
    graph = model({"f": f, "choice": picked}, {"x": coordinates.graph_rows(f, own)})
    for tensor in onnx.load_from_string(graph).graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor)).all(), tensor.name
    session = onnxruntime.InferenceSession(graph)
    raw = (y * coordinates.unit + coordinates.shift).astype(np.float32)
    (again,) = session.run(None, {"f": raw, "choice": choice})
    np.testing.assert_allclose(again, coordinates.inverse(y, choice), rtol=1e-4, atol=1e-4)


def test_steps_survive_the_state() -> None:
    coordinates = Coordinates.fit(table())
    again = Coordinates(table().columns, coordinates.state())
    for ours, theirs in zip(coordinates.steps, again.steps, strict=True):
        assert (ours.column, ours.rest) == (theirs.column, theirs.rest)
        np.testing.assert_array_equal(ours.values, theirs.values)


def test_numbers_that_repeat_come_out_among_those_that_were_seen() -> None:
    rng = np.random.default_rng(3)
    values = rng.choice(np.array([0, 3, 7, 20, 21, 22, 90, *range(100, 150)]), 5000)
    rows = Table((Column("x", "integer"),), values[:, None].astype(np.float32))
    coordinates = Coordinates.fit(rows)
    assert coordinates.blocks[0].form is SCORES
    made = coordinates.inverse(rng.standard_normal((20_000, 1)))
    assert set(made[:, 0]) <= set(values.tolist())
    shares = [np.mean(part == 90) for part in (made[:, 0], values)]
    assert shares[0] == pytest.approx(shares[1], abs=0.005)
    y = coordinates.forward(rows.values, rng)
    assert abs(y.std() - 1) < 0.02


def test_generated_numbers_stay_within_the_range_without_a_pile_unless_tails_are_asked_for() -> (
    None
):
    rows = np.random.default_rng(4).standard_normal((2000, 1)).astype(np.float32)
    columns, y = (Column("x"),), np.linspace(-6, 6, 1001)[:, None]
    made = Coordinates.fit(Table(columns, rows)).inverse(y)
    assert rows.min() <= made.min()
    assert made.max() <= rows.max()
    assert np.mean(made == made.max()) < 0.01
    assert Coordinates.fit(Table(columns, rows), tails=True).inverse(y).max() > 5


def outcomes(n: int, name: str = "outcomes") -> torch.Tensor:
    """s_1 in 0..2, s_2 equal to it but for a tenth, a cluster that is their sum."""
    generator = generator_for(0, name)
    first = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, True, generator=generator)
    other = torch.randint(3, (n,), generator=generator)
    second = torch.where(torch.rand(n, generator=generator) < 0.1, other, first)
    return torch.stack([first, second, first + second], 1)


def alone(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outcomes, and no given numbers."""
    return rows, torch.zeros(len(rows), 0)


def selected(chain: Chain, u: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the choices [n, h] of a chain and of its graph, which are the same but for rounding."""
    argued = argument(("n", u.shape[1]))
    made = chain.graph(argued, ConditionVars(None, ()))
    graph = model({"u": argued}, {str(k): step for k, step in enumerate(made)})
    theirs = np.stack(onnxruntime.InferenceSession(graph).run(None, {"u": u.numpy()}), 1)
    ours = chain.select(u, nothing(u)).numpy()
    assert (theirs != ours).any(1).mean() < 1e-3
    return ours, theirs


def nothing(u: torch.Tensor) -> Conditions:
    return Conditions(torch.zeros(len(u), 0), torch.zeros(len(u), 0, dtype=torch.int64))


@pytest.fixture(scope="module")
def chain() -> Chain:
    rows, back = (alone(outcomes(n, name)) for n, name in ((4000, "rows"), (1000, "back")))
    stage = ChainStage(Chain([3, 3, 5], generator_for(0, "chain")), rows, back)
    fit("head", stage, lambda _: stage.phases(), 0, Watcher())
    assert isinstance(stage.best, Chain)
    return stage.best


def test_a_chain_learns_what_depends_on_what(chain: Chain) -> None:
    u = torch.rand(20_000, 3, generator=generator_for(1, "u"))
    made, real = chain.select(u, nothing(u)), outcomes(20_000)
    for rows in (made, real):
        assert (rows[:, 0] + rows[:, 1] == rows[:, 2]).float().mean() > 0.98
    joint = [torch.bincount(3 * r[:, 0] + r[:, 1], minlength=9) / len(r) for r in (made, real)]
    assert (joint[0] - joint[1]).abs().sum() / 2 < 0.04


def test_a_chain_s_graph_is_the_chain(chain: Chain) -> None:
    wide = Chain([3, 300, 4], generator_for(2, "wide"))
    for each in (chain, wide):
        u = torch.rand(5000, 3, generator=generator_for(1, "u"))
        names = argument(("n", 3))
        steps = each.graph(names, ConditionVars(None, ()))
        graph = model({"u": names}, {str(k): step for k, step in enumerate(steps)})
        found = np.stack(onnxruntime.InferenceSession(graph).run(None, {"u": u.numpy()}), 1)
        assert (found != each.select(u, nothing(u)).numpy()).any(1).mean() < 1e-3


def test_many_names_are_drawn_first_and_keep_their_shares() -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"n{k}" for k in range(3000))
    cells = np.column_stack([rng.integers(3000, size=20_000), rng.integers(2, size=20_000)])
    columns = (Column("a", "category", categories=names), Column("b", "integer"))
    steps = discrete.find(Table(columns, cells.astype(np.float32)))
    assert [step.column for step in steps] == [0, 1]
    rows = torch.from_numpy(discrete.choose(steps, cells))
    rows = torch.cat([rows, torch.zeros(len(rows), 1, dtype=torch.int64)], 1)
    many = Chain([3000, 2, 1], generator_for(0, "many"))
    many.start(rows[:15_000], rows[15_000:])
    shares = torch.softmax(many.first.double(), 0).detach().numpy()
    np.testing.assert_allclose(
        shares, np.bincount(cells[:, 0], minlength=3000) / 20_000, rtol=0.01, atol=1e-6
    )
    u = torch.arange(4096)[:, None].expand(-1, 3).float() / 4096
    argued = argument(("n", 3))
    graph = model({"u": argued}, {"x": many.graph(argued, ConditionVars(None, ()))[0]})
    found = onnxruntime.InferenceSession(graph).run(None, {"u": u.numpy()})[0]
    assert (found != many.select(u, nothing(u))[:, 0].numpy()).mean() < 1e-3


def test_a_step_that_follows_from_another_is_right_in_every_row() -> None:
    rng = np.random.default_rng(0)
    name, other = rng.integers(16, size=3000), rng.integers(3, size=3000)
    number = rng.permutation(16)[name]
    rare = (rng.random(3000) < 0.001).astype(np.int64)
    rows = np.column_stack([other, name, number, rare, number % 5])
    found = discrete.follows(rows, [3, 17, 16, 2, 5], 0)
    assert set(found) == {(2, 1), (4, 1)}
    assert (found[2, 1][name] == number).all()
    assert set(discrete.follows(rows, [3, 17, 16, 2, 5], 3)) == {(4, 1)}
    chain = Chain([3, 17, 16, 2, 5, 4], generator_for(0, "ties"))
    for (step, of), table in found.items():
        chain.tie(step, of, torch.from_numpy(table))
    u = torch.rand(4096, 6, generator=generator_for(0, "u"))
    chosen = chain.select(u, nothing(u))
    assert (chosen[:, 2] == chain.tied_2_1[chosen[:, 1]]).all()
    argued = argument(("n", 6))
    steps = chain.graph(argued, ConditionVars(None, ()))
    graph = model({"u": argued}, {str(k): step for k, step in enumerate(steps)})
    made = np.stack(onnxruntime.InferenceSession(graph).run(None, {"u": u.numpy()}), 1)
    assert (made != chosen.numpy()).any(1).mean() < 1e-3
    assert (found[4, 1][made[:, 1]] == made[:, 4]).all()


def test_a_step_that_is_never_below_another_is_so_in_every_row() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(6, size=2000).astype(np.float32)
    b = (a + rng.integers(0, 5, 2000)).astype(np.float32)
    b[rng.random(2000) < 0.2] = np.nan
    columns = (
        Column("free", "integer"),
        Column("a", "integer"),
        Column("b", "integer", missing=True),
    )
    cells = np.column_stack([rng.integers(6, size=2000), a, b]).astype(np.float32)
    steps = discrete.find(Table(columns, cells))
    rows, names = discrete.choose(steps, cells), [columns[step.column].name for step in steps]
    bounds = discrete.least(steps, columns, rows, ())
    assert [(names[step], names[other]) for step, other in bounds] == [("b", "a")]
    assert not discrete.least(steps, columns, rows, {names.index("b")})
    chain = Chain([*(step.size for step in steps), 3], generator_for(0, "bounds"))
    for places, table in bounds.items():
        chain.tie(*places, torch.from_numpy(table), least=True)
    u = torch.rand(4096, 4, generator=generator_for(0, "u"))
    for chosen in selected(chain, u):
        drawn = {
            name: np.append(step.values, np.nan)[chosen[:, k]]
            for k, (name, step) in enumerate(zip(names, steps, strict=True))
        }
        assert not (drawn["b"] < drawn["a"]).any()
        assert np.isnan(drawn["b"]).mean() > 0.02


def test_names_that_always_miss_a_cell_do_so_among_very_many_names() -> None:
    rng = np.random.default_rng(0)
    name = np.repeat(np.arange(2000), 20)
    cell = rng.integers(40, size=len(name)).astype(np.float32)
    cell[name % 2 == 0] = np.nan
    columns = (
        Column("name", "category", categories=tuple(map(str, range(2000)))),
        Column("cell", "integer", missing=True),
    )
    rows = np.column_stack([name, cell]).astype(np.float32)
    steps = discrete.find(Table(columns, rows))
    assert [step.size for step in steps] == [2000, 41]
    found = discrete.never(steps, discrete.choose(steps, rows))[1, 0]
    assert found[::2, :-1].all() and found[1::2, -1].all()  # noqa: PT018
    assert not found[1::2, :-1].any() and not found[::2, -1].any()  # noqa: PT018


def test_a_bound_that_most_rows_would_keep_by_chance_is_found_where_enough_might_have_broken_it() -> (
    None
):
    rng = np.random.default_rng(0)
    for n, found in ((800, 1), (100, 0)):
        passes = 1 + rng.poisson(2, n)
        rows = np.column_stack([passes, rng.binomial(passes, 0.2)]).astype(np.float32)
        columns = (Column("passes", "integer"), Column("failed", "integer"))
        steps = tuple(discrete.Step(j, np.unique(rows[:, j]), rest=False) for j in range(2))
        assert len(discrete.least(steps, columns, discrete.choose(steps, rows), ())) == found


def test_outcomes_that_never_come_together_are_told_from_those_that_did_not_by_chance() -> None:
    """All flats of the third town have a lift, and none of two rows of the fourth; levels are drawn by chance."""
    rng = np.random.default_rng(0)
    town = np.repeat([0, 1, 2, 3], [60, 60, 40, 2])
    lift = np.where(town == 2, 1, rng.integers(2, size=162))
    lift[town == 3] = 1
    level = rng.integers(12, size=162)
    columns = tuple(
        Column(name, "category", categories=tuple(map(str, range(size))))
        for name, size in (("lift", 2), ("town", 4), ("level", 12))
    )
    rows = np.column_stack([lift, town, level]).astype(np.float32)
    steps = discrete.find(Table(columns, rows))
    assert [step.column for step in steps] == [0, 1, 2]
    found = discrete.never(steps, discrete.choose(steps, rows))
    assert list(found) == [(1, 0)]
    np.testing.assert_array_equal(found[1, 0], [[False, False, True, False], [False] * 4])


def test_what_never_comes_with_a_missing_cell_does_not_in_any_row() -> None:
    """A cell that is always missing beside one name of 8 rows, and may be beside another; a name of 2 rows."""
    rng = np.random.default_rng(0)
    name = np.repeat([0, 1, 2, 3], [50, 60, 8, 2]).astype(np.float32)
    cell = rng.integers(4, size=120).astype(np.float32)
    cell[(name >= 2) | ((name == 1) & (rng.random(120) < 0.5))] = np.nan
    columns = (
        Column("name", "category", categories=("a", "b", "c", "d")),
        Column("cell", "category", categories=("p", "q", "r", "s"), missing=True),
    )
    cells = np.column_stack([name, cell])
    steps = discrete.find(Table(columns, cells))
    assert [step.column for step in steps] == [0, 1]
    found = discrete.never(steps, discrete.choose(steps, cells))
    assert list(found) == [(1, 0)]
    kept = [[1, 1, 1, 1, 0], [1] * 5, [0, 0, 0, 0, 1], [1] * 5]
    np.testing.assert_array_equal(found[1, 0], np.array(kept) == 0)
    chain = Chain([4, 5, 3], generator_for(0, "never"))
    chain.bar(1, 0, torch.from_numpy(found[1, 0]))
    u = torch.rand(4096, 3, generator=generator_for(0, "u"))
    for chosen in selected(chain, u):
        assert (chosen[chosen[:, 0] == 2, 1] == 4).all()
        assert not (chosen[chosen[:, 0] == 0, 1] == 4).any()
        assert 0 < (chosen[chosen[:, 0] == 1, 1] == 4).mean() < 1


def test_a_step_is_learned_beside_many_that_depend_on_nothing() -> None:
    """A cell that is missing in .05, .5 and all rows of three groups, and six columns of noise."""

    def draw(n: int, name: str) -> torch.Tensor:
        generator = generator_for(4, name)
        group = torch.multinomial(torch.tensor([0.5, 0.4, 0.1]), n, True, generator=generator)
        share = torch.tensor([0.05, 0.5, 1.0])[group]
        gone = (torch.rand(n, generator=generator) < share).long()
        return torch.stack([gone, group, *torch.randint(20, (6, n), generator=generator)], 1)

    generator = generator_for(0, "chain")
    stage = ChainStage(
        Chain([2, 3, *[20] * 6], generator), alone(draw(900, "a")), alone(draw(100, "b"))
    )
    fit("head", stage, lambda _: stage.phases(), 0, Watcher())
    with torch.no_grad():
        nats = stage.best(*alone(draw(4000, "c"))).mean(1)
    assert nats[1] < 0.71  # at best .685
    assert nats[2:].sum() < 6 * (np.log(20) + 0.01)


def test_a_chain_stops_before_it_knows_few_rows_by_heart() -> None:
    """Outcomes that depend on nothing: what is kept is no worse than their shares."""
    draw = lambda n, name: torch.randint(8, (n, 4), generator=generator_for(0, name))  # noqa: E731
    chain = Chain([8] * 4, generator_for(0, "chain"))
    stage = ChainStage(chain, alone(draw(300, "a")), alone(draw(200, "b")))
    fit("head", stage, lambda _: stage.phases(), 0, Watcher())
    with torch.no_grad():
        nats = float(stage.best(*alone(draw(4000, "c"))).sum(0).mean())
    assert nats < 4 * np.log(8) + 0.1


def test_numbers_in_order_share_what_is_learned_of_their_neighbours() -> None:
    """A name, a number of 40 that depends on it, and whether that number is high."""

    def draw(n: int, name: str) -> torch.Tensor:
        generator = generator_for(3, name)
        first = torch.randint(3, (n,), generator=generator)
        spread = torch.randn(n, generator=generator)
        number = (12.0 + 8 * first + 4 * spread).round().clamp(0, 39).long()
        high = (number + 3 * torch.randn(n, generator=generator) > 20).long()
        return torch.stack([first, number, high], 1)

    nats = []
    for numbers in ((), (0, 40)):
        generator = generator_for(0, "chain")
        rows, back = alone(draw(600, "a")), alone(draw(300, "b"))
        stage = ChainStage(Chain([3, 40, 2], generator), rows, back, numbers, generator)
        fit("head", stage, lambda _, s=stage: s.phases(), 0, Watcher())
        with torch.no_grad():
            nats.append(float(stage.best(*alone(draw(10_000, "c"))).sum(0).mean()))
    assert nats[1] < nats[0] - 0.02


def test_answers_hang_together_as_they_did() -> None:
    """Seven answers of 1 to 5 to one question, more or less, and a column of noise; the graph does the same."""

    def draw(n: int, name: str) -> torch.Tensor:
        generator = generator_for(7, name)
        common = torch.randn(n, 1, generator=generator)
        answers = 2.5 + 1.2 * (0.7 * common + 0.7 * torch.randn(n, 7, generator=generator))
        noise = torch.randint(5, (n, 1), generator=generator)
        return torch.cat([answers.floor().clamp(0, 4).long(), noise], 1)

    def together(rows: torch.Tensor) -> tuple[float, float]:
        found = torch.corrcoef(rows.double().T).abs()
        return float((found[:7, :7].sum() - 7) / 42), float(found[7, :7].mean())

    rows, back, numbers = draw(700, "a"), draw(100, "b"), [5] * 7 + [0]
    generator = generator_for(0, "chain")
    stage = ChainStage(Chain([5] * 8, generator), alone(rows), alone(back), numbers, generator)
    fit("head", stage, lambda _: stage.phases(), 0, Watcher())
    chain = stage.best
    assert isinstance(chain, Chain)
    u = torch.rand(8192, 8, generator=generator_for(0, "u"))
    wanted, weak = together(draw(20_000, "c"))[0], together(chain.select(u, nothing(u)))[0]
    chain.match(*alone(torch.cat([rows, back])), numbers, generator)
    made = chain.select(u, nothing(u))
    assert weak < 0.9 * wanted  # else there is nothing to mend
    assert together(made)[0] == pytest.approx(wanted, rel=0.06)
    assert together(made)[1] < 0.06
    argued = argument(("n", 8))
    steps = chain.graph(argued, ConditionVars(None, ()))
    graph = model({"u": argued}, {str(k): step for k, step in enumerate(steps)})
    theirs = onnxruntime.InferenceSession(graph).run(None, {"u": u.numpy()})
    assert (np.stack(theirs, 1) != made.numpy()).any(1).mean() < 2e-3


def test_a_column_that_is_missing_where_another_says_so_is_missing_there(tmp_path) -> None:
    from cases import settings

    import scgan_train
    from scgan_infer import load
    from scgan_train.training.stages import train

    rows = table(3000)
    run = train(rows, replace(settings(), seed=1), tmp_path / "run")
    model = load(scgan_train.export(run, tmp_path / "bundle"))
    made = model.sample(8000)
    gone = np.isnan(made[:, 2])
    assert 0.03 < gone.mean() < 0.07
    assert (made[gone, 0] == 2).mean() > 0.97
    assert np.mean(made[:, 2] == 0) == pytest.approx(np.mean(rows.values[:, 2] == 0), abs=0.03)
    assert set(made[:, 1]) <= set(rows.values[:, 1].tolist())
    back = model.reconstruct(rows.values[:200])
    np.testing.assert_array_equal(np.isnan(back), np.isnan(rows.values[:200]))
    assert (back[:, :2] == rows.values[:200, :2]).all()


def test_what_is_discrete_does_not_depend_on_which_rows_are_held_out(tmp_path) -> None:
    """A cell that is missing in one row alone, which may be held out, is a step all the same."""
    from cases import settings

    import scgan_train
    from scgan_infer import load
    from scgan_train.training.stages import _split, train

    rng = np.random.default_rng(0)
    values = rng.standard_normal((400, 2)).astype(np.float32)
    held = _split(400, 0)[1].numpy()
    values[held[0], 1] = np.nan
    values[:, 0] = 1
    values[held[1], 0] = 2  # varies in a held-out row alone
    rows = Table((Column("x"), Column("y", missing=True)), values)
    run = train(rows, settings(clusters={"k": 2}), tmp_path / "run")
    model = load(scgan_train.export(run, tmp_path / "bundle"))
    back = model.reconstruct(values[held])
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values[held]))


def test_one_row_that_is_held_out_is_a_table(tmp_path) -> None:
    from cases import settings

    from scgan_train.training.stages import train

    rng = np.random.default_rng(0)
    values = np.column_stack([rng.integers(3, size=30), rng.random(30)]).astype(np.float32)
    columns = (Column("k", "category", categories=("a", "b", "c")), Column("x"))
    run = train(Table(columns, values), settings(clusters={"k": 2}), tmp_path / "run")
    assert run.load_held_out().shape == (1, 2)
    assert "mse" in run.facts["figures"]


@pytest.mark.parametrize(("width", "drawn"), [(12, 12), (13, 0)])
def test_many_columns_with_spikes_are_scored_instead_of_drawn_one_after_the_other(
    width: int, drawn: int
) -> None:
    rng = np.random.default_rng(0)
    amounts = np.where(rng.random((2000, width)) < 0.6, 0.0, rng.exponential(size=(2000, width)))
    table = Table(tuple(Column(f"x{j}") for j in range(width)), amounts.astype(np.float32))
    coordinates = Coordinates.fit(table)
    assert len(coordinates.steps) == drawn
    assert coordinates.scored.all() == (drawn == 0)
    if not drawn:
        y = rng.standard_normal((4000, width))
        made = coordinates.inverse(y)
        assert np.allclose((made == 0).mean(0), (amounts == 0).mean(0), atol=0.03)

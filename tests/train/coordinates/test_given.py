from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from browser import NEEDED, RUNTIME, Browser, saved, served, visit
from cases import mixed_table, settings

import scgan_infer
import scgan_train
from scgan_infer.columns import Column, Table
from scgan_infer.errors import DataError, UsageError
from scgan_infer.page import write
from scgan_infer.rows.formats import read_table
from scgan_infer.sampling.given import given_of
from scgan_infer.sampling.model import Model
from scgan_infer.sampling.verify import verify
from scgan_train import datasets
from scgan_train.config import MapperConfig
from scgan_train.coordinates.given import Conditions, ConditionVars, Given, divide
from scgan_train.exporting.exporter import export
from scgan_train.fitting.loop import generator_for
from scgan_train.graph import argument
from scgan_train.graph import model as build
from scgan_train.latents.chain import Chain
from scgan_train.latents.clusters import Assign, Clusters
from scgan_train.maps.flow import FlowMapper
from scgan_train.resolving import resolve
from scgan_train.training.stages import train

GIVEN = ("phi", "share", "count", "species")


def table() -> Table:
    """Every kind of column, of which a given one misses cells."""
    made = mixed_table()
    j = made.names.index("share")
    columns = list(made.columns)
    columns[j] = Column("share", "bounded", low=0.0, high=1.0, missing=True)
    values = made.values.copy()
    values[::7, j] = np.nan
    return Table(tuple(columns), values)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("given")
    run = train(table(), settings(given=GIVEN, decoder={"steps": "auto"}), folder / "run", "rows")
    return scgan_infer.load(export(run, folder / "bundle"), "cpu", 1)


@pytest.fixture(scope="session")
def conditions() -> np.ndarray:
    rows = table()
    return rows.values[:, [rows.names.index(name) for name in GIVEN]]


def two_clusters() -> Clusters:
    """Two Gaussians of one given number and two latents."""
    means = torch.tensor([[-1.0, 0.0, 1.0], [2.0, 3.0, -1.0]])
    factors = torch.tensor(
        [
            [[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.2, 0.5]],
            [[0.7, 0, 0], [-0.9, 0.3, 0], [0.4, 0.1, 1.0]],
        ]
    )
    return Clusters(torch.tensor([0.3, 0.7]), means, factors, "em")


def test_the_head_begins_as_the_exact_posterior_of_the_mixture() -> None:
    from scipy.stats import norm

    clusters = two_clusters()
    chain = Chain([2], generator_for(0, "c"), (), Assign(clusters.leading(1)), 1)
    labels = torch.tensor([[0], [1], [1]])
    chain.start(labels, labels[:0])
    h = torch.linspace(-3, 4, 50)[:, None]
    found = chain.logits(torch.zeros(50, 1, dtype=torch.int64), h, 0).softmax(1)
    parts = 0.3 * norm.pdf(h, -1, 1), 0.7 * norm.pdf(h, 2, 0.7)
    np.testing.assert_allclose(found[:, :1].detach(), parts[0] / sum(parts), atol=1e-5)


def test_what_is_matched_beside_an_untrained_gate_is_in_the_graph_too() -> None:
    chain = Chain([2], generator_for(0, "c"), (), Assign(two_clusters().leading(1)), 1)
    h = torch.linspace(-3, 4, 2000)[:, None]
    labels = (h < 0).long()  # where the mixture says the other
    chain.start(labels, labels[:0])
    chain.match(labels, h, [0], generator_for(0, "m"))
    u = torch.rand(2000, 1, generator=generator_for(0, "u"))
    ours = chain.select(u, Conditions(h, torch.zeros(2000, 0, dtype=torch.int64)))
    assert (ours == labels).double().mean() > 0.9
    vars_ = argument(("n", 1)), argument(("n", 1))
    (made,) = chain.graph(vars_[0], ConditionVars(vars_[1], ()))
    graph = build({"u": vars_[0], "h": vars_[1]}, {"choice": made})
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"u": u.numpy(), "h": h.numpy()})
    assert (theirs != ours[:, 0].numpy()).mean() < 2e-3


def test_an_untrained_flow_draws_from_the_conditional_gaussian() -> None:
    clusters, generator = two_clusters(), generator_for(0, "w")
    config = MapperConfig("flow", 1, 8, 1e-3, 2)
    flow = FlowMapper(clusters, config, generator, (), 1)
    w = torch.randn(40_000, 2, generator=generator)
    for k in range(2):
        mean, factor = clusters.means[k].double(), clusters.factors[k].double()
        covariance = factor @ factor.T
        slope = covariance[1:, 0] / covariance[0, 0]
        for h in (-2.0, 1.5):
            n = torch.full((len(w),), k)
            eps = flow(w, n, torch.full((len(w), 1), h)).double().detach()
            torch.testing.assert_close(
                eps.mean(0), mean[1:] + slope * (h - mean[0]), atol=0.02, rtol=0
            )
            wanted = covariance[1:, 1:] - slope[:, None] * covariance[None, 0, 1:]
            torch.testing.assert_close(torch.cov(eps.T), wanted, atol=0.02, rtol=0)


def test_a_flow_takes_back_what_it_draws() -> None:
    generator = generator_for(0, "w")
    flow = FlowMapper(two_clusters(), MapperConfig("flow", 1, 8, 1e-3, 2), generator, (), 1)
    for layer in flow.layers:
        torch.nn.init.normal_(layer.last, std=0.1, generator=generator)  # type: ignore[arg-type]
    cluster, w = torch.arange(100) % 2, torch.randn(100, 2, generator=generator)
    h = torch.randn(100, 1, generator=generator)
    v = flow.whitened(torch.cat([h, flow(w, cluster, h)], 1), cluster)
    torch.testing.assert_close(v[:, :1], flow.known(h, cluster), atol=1e-5, rtol=0)
    back, context = v[:, 1:], flow.context(cluster, v[:, :1])
    for depth, layer in enumerate(flow.layers):
        back = layer.inverse(back.flip(1) if depth else back, cluster, context)[0]  # type: ignore[operator]
    torch.testing.assert_close(back, w, atol=1e-4, rtol=0)


def test_what_networks_see_of_given_columns(conditions: np.ndarray) -> None:
    rows = table()
    columns = tuple(rows.columns[rows.names.index(name)] for name in GIVEN)
    given = Given.fit(Table(columns, conditions))
    assert given.dims == 4  # cosine and sine of phi, share and count
    assert given.sizes == (2, 3)  # whether share is missing, and the species
    h = given.forward(conditions)
    np.testing.assert_allclose((h[:, 2:] ** 2).sum(1), 2.0, rtol=1e-5)
    seam = np.tile(conditions[:1], (2, 1))
    seam[:, 0] = -180.0, np.nextafter(np.float32(180.0), np.float32(0))
    np.testing.assert_allclose(*given.forward(seam), atol=1e-5)
    far = conditions[:1].copy()
    far[0, 2] = 1e30
    assert np.isfinite(given.forward(far)).all()
    again = Given(columns, given.state())
    np.testing.assert_array_equal(again.forward(conditions), h)


def test_the_bundle_keeps_its_promises(model: Model) -> None:
    verify(model.bundle.path)
    assert [column.name for column in model.given] == ["phi", "share", "count", "species"]
    assert [column.name for column in model.manifest.whole] == list(table().names)
    assert "c" not in model.manifest.interfaces["decoder.onnx"][0]
    assert "head.onnx" in model.bundle.graphs
    card = (model.bundle.path / "card.md").read_text("utf-8")
    assert "| phi | periodic, given |" in card
    assert "--given conditions.csv" in card


def test_rows_follow_their_conditions(model: Model, conditions: np.ndarray) -> None:
    rows, names = model.sample(given=conditions, seed=1), [c.name for c in model.columns]
    real = table().values[:, table().names.index("r")]
    assert np.mean(np.abs(rows[:, names.index("r")] - real) < 1) > 0.9


def test_sample_i_is_a_function_of_seed_i_and_its_condition(
    model: Model, conditions: np.ndarray
) -> None:
    some = conditions[:1300]
    rows = model.sample(given=some, each=4, seed=5)
    assert len(rows) == 5200
    np.testing.assert_array_equal(model.sample(given=some, each=4, seed=5, start=4090), rows[4090:])
    np.testing.assert_array_equal(
        model.sample(9, 5, 4093, given=some, each=4), rows[4093:4102]
    )  # n rows of them
    np.testing.assert_array_equal(
        model.sample(given=np.repeat(some, 4, axis=0), seed=5), rows
    )  # each
    np.testing.assert_array_equal(np.concatenate([*model.blocks(given=some, each=4, seed=5)]), rows)
    other = some.copy()
    other[100] = some[7]
    changed = (model.sample(given=other, each=4, seed=5) != rows).any(1)
    assert set(np.flatnonzero(changed)) <= {400, 401, 402, 403}


def test_conditions_come_in_any_form(model: Model, conditions: np.ndarray, tmp_path: Path) -> None:
    species = np.array(["a", "b", "c"])
    some = conditions[1:6]
    names = species[some[:, 3].astype(int)]
    mapping = dict(zip(GIVEN, [*some[:, :3].T, names], strict=True))
    rows = model.sample(given=some)
    np.testing.assert_array_equal(model.sample(given=mapping | {"other": np.arange(5)}), rows)
    lines = [",".join(["species", "count", "share", "phi"])]
    for phi, share, count in some[:, :3].tolist():
        lines.append(f"{names[len(lines) - 1]},{count!r},{share!r},{phi!r}")
    (tmp_path / "c.csv").write_text("\n".join(lines))
    np.testing.assert_array_equal(model.sample(given=tmp_path / "c.csv"), rows)
    one = dict(zip(GIVEN, [*some[2, :3].tolist(), str(names[2])], strict=True))
    np.testing.assert_array_equal(model.sample(1, start=2, given=one), rows[2:3])


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        (None, {"n": 3}, "generated given phi, share, count, species"),
        ({"phi": 1, "x": 2}, {"n": 3}, "x is no given column"),
        ({"phi": 1}, {"n": 3}, "has no column 'share'"),
        (np.zeros((2, 3)), {}, "3 columns without names where 4 are needed"),
        (np.zeros((2, 4)), {"n": 3}, "2 conditions, 1 rows each"),
        (np.zeros((2, 4)), {"each": 0}, "each must be at least 1"),
        (
            {"phi": 1, "share": 0.5, "count": 40, "species": "z"},
            {"n": 3},
            "'z' is none of its categories \\(a, b, c\\)",
        ),
        ({"phi": 1, "share": 0.5, "count": "", "species": "a"}, {"n": 3}, "column 'count', row 1"),
        ({"phi": 1, "share": 0.5, "count": 4, "species": "a"}, {}, "n is missing"),
    ],
)
def test_conditions_that_do_not_fit_are_named(
    model: Model, given: object, more: dict[str, int], words: str
) -> None:
    with pytest.raises((UsageError, DataError), match=words):
        model.sample(given=given, **more)


def test_numbers_beyond_training_are_taken_and_counted(model: Model) -> None:
    far = np.tile(np.array([[0, 0.5, 40, 1]], np.float32), (4, 1))
    far[:3, 2] = -9, 1e9, 41.5
    from scgan_infer.sampling.given import Given as Conditions

    assert Conditions(far).outside(model.manifest.given) == {"count": 2}
    assert len(model.sample(given=far)) == 4


def test_a_cluster_can_be_asked_for(model: Model, conditions: np.ndarray) -> None:
    cluster = int(np.bincount(model.encode(table().values)[1]).argmax())
    near = conditions[model.encode(table().values)[1] == cluster][:50]
    rows = model.sample(given=near, cluster=cluster)
    np.testing.assert_array_equal(model.sample(given=near, cluster=cluster, start=7), rows[7:])
    whole = model.together(rows, near)
    assert (model.encode(whole)[1] == cluster).mean() > 0.8


def test_rows_are_encoded_with_their_conditions(model: Model) -> None:
    rows = table().values
    again = model.reconstruct(rows)
    np.testing.assert_array_equal(again[:, [2, 3, 5, 6]], rows[:, [2, 3, 5, 6]])
    assert np.abs(again[:, 0] - rows[:, 0]).mean() < 0.5


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"given": ["q"]}, "q: there is no such column"),
        ({"given": ["phi", "phi"]}, "names phi twice"),
        ({"given": list(mixed_table().names)}, "leave one that is generated"),
        ({"given": ["phi"], "latents": "centers"}, "centers has no given columns"),
        ({"given": ["phi"], "mapper": {"kind": "ot"}}, "'ot' sees no given columns"),
        ({"given": ["phi"], "decoder": {"steps": 9}}, "no critics where columns are given"),
    ],
)
def test_what_there_is_not_with_given_columns(more: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(settings(**({"decoder": {"steps": "auto"}} | more)), mixed_table())


@pytest.mark.parametrize("given", [("species",), ("r", "pt", "phi", "share", "depth", "count")])
def test_all_columns_may_be_names_and_all_but_one_given(
    given: tuple[str, ...], tmp_path: Path
) -> None:
    rows = mixed_table(600)
    places = [1, 6] if given == ("species",) else [*divide(rows.columns, given)[1], 6]
    few = Table(tuple(rows.columns[j] for j in places), rows.values[:, places])
    run = train(few, settings(given=given, decoder={"steps": "auto"}), tmp_path / "run", "rows")
    model = scgan_infer.load(export(run, tmp_path / "bundle"), "cpu", 1)
    c = model.divided(few.values)[1]
    made = model.sample(given=c)
    if given == ("species",):
        assert np.median(made[c[:, 0] == 0]) < np.median(made[c[:, 0] == 2])
    else:
        assert (made[:, 0] == few.values[:, -1]).mean() > 0.9


def test_nothing_is_known_of_no_columns() -> None:
    nothing = Conditions(torch.zeros(3, 0), torch.zeros(3, 0, dtype=torch.int64))
    chain = Chain([2, 3], generator_for(0, "c"))
    assert chain.select(torch.zeros(3, 2), nothing).shape == (3, 2)


def test_tables_have_all_columns_and_given_numbers_as_they_came(
    model: Model, conditions: np.ndarray
) -> None:
    names = np.array(["a", "b", "c"])[conditions[1:6, 3].astype(int)]
    numbers = conditions[1:6, :3].astype(np.float64) + 1e-12
    given = dict(zip(GIVEN, [*numbers.T, names], strict=True))
    made = model.sample_table(given=given, each=2)
    assert list(made) == list(table().names)
    assert list(made["phi"]) == np.repeat(numbers[:, 0], 2).tolist()
    assert list(made["species"]) == np.repeat(names, 2).tolist()
    held = model.sample_table(given=given_of(model.manifest, given, 2), start=3)
    assert list(held) == list(made)
    shortest = [float(str(x)) for x in conditions[1:6, 0]]
    assert list(held["phi"]) == np.repeat(shortest, 2)[3:].tolist()
    for name in ("species", "r", "pt"):
        assert list(held[name]) == list(made[name])[3:]


@NEEDED[0]
@NEEDED[1]
def test_the_page_gives_the_rows_of_a_condition(
    model: Model, conditions: np.ndarray, tmp_path: Path
) -> None:
    whole = model.manifest.whole
    page = write(tmp_path / "page", [model.bundle], {model.bundle.path: table()}, RUNTIME)
    browser = Browser(tmp_path / "home")
    with served(page) as address:
        state = "+".join(map(repr, conditions[1].tolist()))
        visit(browser, address, f"n=5000&seed=3&given={state}")
        found = read_table(saved(browser, tmp_path), columns=whole)
        assert browser.run("document.getElementById('real').ariaLabel").startswith("1500 real")
        labels = browser.run(
            "[...document.querySelectorAll('#given label')].map(e => e.textContent)"
        )
    browser.close()
    assert browser.messages == []
    assert [label.split()[0] for label in labels] == list(GIVEN)
    rows = found.values.astype(np.float64)
    own = [found.names.index(name) for name in GIVEN]
    np.testing.assert_allclose(rows[:, own], conditions[[1]].repeat(5000, 0), rtol=1e-6)
    expected = model.sample(5000, seed=3, given=conditions[[1]], each=5000).astype(np.float64)
    spread = expected.std(axis=0)
    gap = np.abs(np.delete(rows, own, axis=1) - expected) / np.where(spread > 0, spread, 1.0)
    assert (gap.max(axis=1) > 1e-5).mean() <= 2e-4


def test_judges_see_rows_that_ignore_their_conditions(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scgan_infer.judging import conditional

    monkeypatch.setattr(conditional, "LEAST_JUDGED_ROWS", 100)
    rows = table().values
    found = conditional.measure(model, rows, 0)
    assert {rank.column for rank in found.ranks} == {"r", "pt", "depth", "same"}
    assert all(0 <= share <= 1 for rank in found.ranks for share in rank.covered)
    shuffled = rows.copy()
    given = model.divided(rows)[1]
    mixed = given[np.random.default_rng(0).permutation(len(rows))]
    shuffled[:] = model.together(model.divided(rows)[0], mixed)
    wrong = conditional.measure(model, shuffled, 0)
    assert wrong.slices[0].c2st > found.slices[0].c2st + 0.1
    assert min(rank.p for rank in wrong.ranks) < 1e-6


def test_a_simulation_asks_a_row_at_a_time_and_in_batches(
    model: Model, conditions: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "c.npy", conditions[:300])
    example = Path(__file__).parents[3] / "examples" / "python" / "simulation.py"
    command = [sys.executable, example, model.bundle.path, tmp_path / "c.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "0.00% of the rows differ" in done.stderr or "0.33% of the rows differ" in done.stderr
    rows = np.loadtxt(done.stdout.splitlines(), delimiter=",")
    assert rows.shape == (300, 4)
    assert np.mean(np.abs(rows[:, 0] - table().values[:300, 0]) < 1) > 0.9


@pytest.mark.parametrize("name", ["phi", "species"])
def test_slices_are_drawn(model: Model, name: str) -> None:
    pytest.importorskip("matplotlib")
    from scgan_infer.judging.evaluation import given_picture

    picture = given_picture(model, table().values, name)
    assert len(picture.axes) == (5 if name == "phi" else 3) * 4
    with pytest.raises(UsageError, match="no given column; those are phi"):
        given_picture(model, table().values, "r")


def test_walls_are_not_guessed_where_columns_are_given() -> None:
    rng = np.random.default_rng(0)
    made = rng.uniform(-1, 1, (2000, 2))
    data = {"a": made[:, 0], "b": made[:, 1], "c": made.sum(1) + rng.normal(size=2000)}

    def columns(**more: object) -> dict[str, Column]:
        table = datasets.load(data, settings(**more))[1]
        return {column.name: column for column in table.columns}

    free = columns()
    assert {name: column.kind for name, column in free.items()} == {
        "a": "bounded",
        "b": "bounded",
        "c": "real",
    }
    assert [column.kind for column in columns(given=["c"]).values()] == ["real"] * 3
    told = {"a": {"kind": "bounded", "low": -1.0, "high": 1.0}}
    assert [c.kind for c in columns(given=["c"], columns=told).values()] == [
        *("bounded", "real", "real")
    ]
    assert columns(given=["a"])["a"] == free["a"]


def test_rows_stay_in_the_range_that_was_seen(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, 500)
    run = scgan_train.train(
        {"a": a, "c": a + 0.5 * rng.normal(size=500)},
        {"given": ["c"], "mapper": {"steps": 10}, "device": "cpu"},
        tmp_path / "run",
    )
    model = scgan_infer.load(export(run, tmp_path / "bundle"), "cpu", 1)
    made = model.sample(given={"c": 1.2}, n=5000)
    assert a.min() <= made.min()
    assert 0.8 < made.max() <= a.max()
    names = {node.op_type for node in onnx.load(tmp_path / "bundle" / "decoder.onnx").graph.node}
    assert "Sigmoid" not in names  # lines need no layers


def test_noise_restores_what_the_latent_loses_under_any_condition(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    c, near, lost = rng.normal(size=(3, 400))
    rows = np.column_stack([c, c + near, 0.5 * lost])
    columns = (Column("c"), Column("near"), Column("lost"))
    config = settings(
        given=("c",),
        encoder={"latent_dim": 1, "steps": "auto"},
        clusters={"k": 2},
        mapper={"steps": 20},
        decoder={"steps": "auto", "widths": [8], "warm_steps": 150},
    )
    run = train(Table(columns, rows.astype(np.float32)), config, tmp_path / "run", "rows")
    model = scgan_infer.load(export(run, tmp_path / "bundle"), "cpu", 1)
    assert [model.manifest.sizes[name] for name in "egq"] == [1, 1, 1]
    assert verify(tmp_path / "bundle").worst < 1e-4
    for value in (-1.0, 1.0):
        made = model.sample(2000, given={"c": value})
        assert made[:, 1].std() == pytest.approx(0.5, abs=0.1)

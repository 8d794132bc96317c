"""Pictures: what is in them, that the same rows give the same bytes, that a file is whole or not there."""

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.errors import DataError, UsageError
from scgan_infer.judging import canvas, plots
from scgan_infer.rows.formats import read_table
from scgan_train.datasets import table

Text = pytest.importorskip("matplotlib.text").Text
Image = pytest.importorskip("PIL.Image")

XY = (Column("x"), Column("y"))
MIXED = (
    Column("mass", "log", unit="kg"),
    Column("phi", "periodic", period=360.0),
    Column("n", "integer"),
    Column("kind", "category", categories=("star", "galaxy")),
)


def mixed(n, seed):
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [rng.lognormal(size=n), rng.uniform(0, 360, n), rng.poisson(3, n), rng.integers(2, size=n)]
    )


def texts(figure):
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def blue_and_vermilion(png):
    """Boolean images: where the data's and the samples' colours were drawn."""
    red, _, blue = np.moveaxis(pixels(png), -1, 0)
    return blue > red + 40, red > blue + 40


def test_data_and_samples_have_the_same_axes_and_number_of_rows():
    real, generated = table("two_spirals", 3000, 0).values, 2 * table("two_spirals", 5000, 1).values
    left, right = plots.data_and_samples(real, generated, XY).axes
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    assert [len(axes.collections[0].get_offsets()) for axes in (left, right)] == [3000, 3000]
    assert "3,000 rows" in right.get_title()


def test_notebooks_show_a_figure_that_a_cell_returns():
    rows = table("abs", 100, 0).values
    for figure in (plots.data_and_samples(rows, rows, XY), plots.latent_clusters(rows, rows[:, 0])):
        assert figure._repr_png_() == canvas.png(figure)


def test_every_row_but_the_farthest_lies_within_the_axes():
    rows = np.random.default_rng(0).standard_cauchy((20_000, 2))
    axes = plots.data_and_samples(rows, rows, XY).axes[0]
    inside = [
        (low < rows[:, j]) & (rows[:, j] < high)
        for j, (low, high) in enumerate((axes.get_xlim(), axes.get_ylim()))
    ]
    assert 0.997 < np.mean(inside) < 1
    spiral = table("two_spirals", 2000, 0).values
    axes = plots.data_and_samples(spiral, spiral, XY).axes[0]
    assert axes.get_xlim()[0] < spiral[:, 0].min()
    assert axes.get_xlim()[1] < 1.2 * spiral[:, 0].max()


@pytest.mark.parametrize("d", [1, 2, 4])
def test_columns_of_every_kind_are_drawn_with_names_units_and_readable_letters(d):
    columns = MIXED[-d:] if d < 4 else MIXED
    figure = plots.data_and_samples(
        mixed(400, 0)[:, -d:], mixed(500, 1)[:, -d:], columns, title="a title"
    )
    shown = texts(figure)
    words = {line for artist in shown for line in artist.get_text().split("\n")}
    assert {
        "a title",
        "star",
        "galaxy",
        *(column.name for column in columns if not column.unit),
    } <= words
    assert ("mass [kg]" in words) == (d == 4)
    assert min(artist.get_fontsize() for artist in shown) >= 9


def test_a_matrix_shows_the_columns_that_depend_on_each_other_and_names_the_rest():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((2000, 9))
    rows[:, 8] = rows[:, 3] + 0.1 * rows[:, 8]
    figure = plots.data_and_samples(rows, rows, [Column(f"c{j}") for j in range(9)])
    words = {artist.get_text() for artist in texts(figure)}
    assert len(figure.axes) == 36
    assert {"c3", "c8"} <= words
    assert sum(name in words for name in (f"c{j}" for j in range(9))) == 6
    (title,) = (word for word in words if "not shown" in word)
    assert re.findall(r"c\d", title) == [f"c{j}" for j in range(9) if f"c{j}" not in words]


def test_samples_that_fall_where_no_data_is_can_be_seen():
    real = np.random.default_rng(0).normal(2, 0.1, (4000, 2))
    stray = np.where(np.arange(4000)[:, None] < 40, -real, real)
    blue, vermilion = blue_and_vermilion(plots.preview(real, stray, XY, ""))
    lower_left = np.s_[250:400, 60:200], np.s_[250:400, 560:700]
    assert not blue[lower_left[0]].any()
    assert vermilion[lower_left[1]].sum() > 10


@pytest.mark.parametrize("columns", [MIXED[:1], XY, MIXED])
def test_a_preview_is_small_and_the_same_each_time_and_says_nothing_of_the_machine(columns):
    real = mixed(4000, 0)[:, : len(columns)]
    png = plots.preview(real, mixed(6000, 1)[:, : len(columns)], columns, "a bundle")
    assert png == plots.preview(real, mixed(6000, 1)[:, : len(columns)], columns, "a bundle")
    assert len(png) < 150_000
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (1000, 450)
        assert not set(image.info) - {"transparency", "dpi", "gamma"}
    assert b"atplotlib" not in png


def test_pictures_do_not_touch_the_user_s_style():
    import matplotlib

    with matplotlib.rc_context({"font.size": 3.0, "axes.facecolor": "black"}):
        dark = plots.preview(mixed(100, 0)[:, :2], mixed(100, 1)[:, :2], XY, "")
        assert matplotlib.rcParams["font.size"] == 3.0
    assert dark == plots.preview(mixed(100, 0)[:, :2], mixed(100, 1)[:, :2], XY, "")


@pytest.mark.parametrize("e", [1, 2, 5])
def test_clusters_have_colours_unlike_their_neighbours(e):
    rng = np.random.default_rng(0)
    clusters = rng.integers(12, size=3000)
    latents = np.zeros((3000, e))
    latents[:, 0] = clusters
    latents += 0.05 * rng.standard_normal(latents.shape)
    axes = plots.latent_clusters(latents, clusters).axes[0]
    dots = axes.collections[0]
    colours, x = dots.get_facecolors(), np.asarray(dots.get_offsets())[:, 0]
    order = np.argsort(np.abs(x - x.min()))
    bands = np.array_split(colours[order], 12)
    typical = [tuple(np.median(band, axis=0)) for band in bands]
    assert all(a != b for a, b in pairwise(typical))
    assert {artist.get_text() for artist in axes.texts} == {str(i) for i in range(12)}


def test_latent_models_stand_beside_the_true_latents_on_the_same_axes():
    true = np.random.default_rng(0).standard_normal((500, 2))
    figure = plots.latent_models(true, {"gaussian": 9 * true, "mapper": true})
    assert [axes.get_title() for axes in figure.axes] == ["real rows", "gaussian", "mapper"]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1


def test_planes_make_a_grid_with_the_data_first():
    rows = {
        name: {
            model: table(name, 300, seed).values
            for seed, model in enumerate(("data", "mapper", "real"))
        }
        for name in ("abs", "two_spirals")
    }
    axes = plots.planes(rows).axes
    assert [panel.get_title() for panel in axes[:3]] == ["data", "mapper", "real"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["abs", "two spirals"]
    assert axes[3].get_xlim() == axes[5].get_xlim() != axes[0].get_xlim()


def test_training_curves_show_every_number_of_the_history(tmp_path):
    history = tmp_path / "history.jsonl"
    lines = [
        {"stage": "encoder", "phase": "contrast", "step": s, "loss": np.exp(-s / 20)}
        for s in range(0, 200, 2)
    ]
    lines += [
        {"stage": "decoder", "phase": "joint", "step": s, "mse": 0.1, "critic": -1.0, "note": "x"}
        for s in range(9)
    ]
    history.write_text("\n".join(json.dumps(line) for line in lines))
    axes = plots.training_curves(history).axes
    assert [panel.get_ylabel() for panel in axes] == ["loss", "mse", "critic"]
    assert [panel.get_title() for panel in axes] == ["encoder contrast", "decoder joint", ""]
    steps, losses = axes[0].lines[0].get_data()
    assert np.array_equal(steps, np.arange(0, 200, 2))
    assert losses == pytest.approx(np.exp(-steps / 20))
    assert [panel.get_yscale() for panel in axes] == ["log", "linear", "linear"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no numbers"),
        ('{"step": 1}', "no numbers"),
        ('{"loss": 1}\n{"lo', "line 2: not JSON"),
        ("3", "line 1"),
    ],
)
def test_a_history_that_cannot_be_drawn_is_named(tmp_path, text, message):
    history = tmp_path / "history.jsonl"
    history.write_text(text)
    with pytest.raises(DataError, match=message):
        plots.training_curves(history)


def test_a_history_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        plots.training_curves(tmp_path / "nothing.jsonl")


def test_noise_directions_say_how_far_each_dimension_moves_rows():
    rng = np.random.default_rng(0)
    base, strengths = rng.standard_normal((400, 3)), [-2, -1, 0, 1, 2]
    moved = [[base + s * 0.05 * np.eye(3)[k] for s in strengths] for k in range(2)]
    (image,) = (
        plots.noise_directions(base, moved, strengths, [Column(c) for c in "abc"]).axes[0].images
    )
    assert np.asarray(image.get_array()) == pytest.approx(
        np.array([[0.2, 0, 0], [0, 0.2, 0]]), rel=0.1
    )


def test_noise_directions_in_the_plane_are_paths_drawn_far_enough_to_be_seen():
    base, strengths = np.random.default_rng(0).standard_normal((400, 2)), [-2.0, 0.0, 2.0]
    moved = np.stack([base + s * np.array([0.001, 0.0]) for s in strengths])[None]
    figure = plots.noise_directions(base, moved, strengths, XY)
    segments = np.array(figure.axes[0].collections[0].get_segments())
    assert figure.get_suptitle().endswith("drawn 100 times as far")
    assert np.ptp(segments[:, :, 0], axis=1) == pytest.approx(0.2)
    assert np.ptp(segments[:, :, 1], axis=1) == pytest.approx(0)


@pytest.mark.parametrize("d", [2, 3])
def test_noise_that_moves_nothing_is_said_to(d):
    base, columns = (
        np.random.default_rng(0).standard_normal((50, d)),
        [Column(c) for c in "abc"[:d]],
    )
    figure = plots.noise_directions(base, np.tile(base, (2, 3, 1, 1)), [-2.0, 0.0, 2.0], columns)
    assert any("moves no row" in artist.get_text() for artist in texts(figure))


def test_many_curves_fill_the_page_in_rows(tmp_path):
    history = tmp_path / "history.jsonl"
    lines = [{"stage": f"s{k}", "step": step, "loss": 1.0} for k in range(3) for step in range(3)]
    lines += [{"stage": "last", "step": step, **dict.fromkeys("abcdefg", 1.0)} for step in range(3)]
    history.write_text("\n".join(map(json.dumps, lines)))
    figure = plots.training_curves(history)
    assert [panel.get_title() for panel in figure.axes] == ["s0", "s1", "s2", "last", *[""] * 6]
    assert figure.get_figwidth() < 1.5 * figure.get_figheight() + 3


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_saved_picture_is_complete_and_the_same_each_time(tmp_path, suffix):
    figure = plots.latent_models(mixed(50, 0)[:, :2], {"mapper": mixed(50, 1)[:, :2]})
    for name in ("once", "twice"):
        canvas.save(figure, tmp_path / (name + suffix))
    once, twice = ((tmp_path / (name + suffix)).read_bytes() for name in ("once", "twice"))
    assert once == twice
    assert once.startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[suffix])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_picture_that_cannot_be_written_says_so(tmp_path):
    figure = plots.latent_models(mixed(50, 0)[:, :2], {})
    with pytest.raises(UsageError, match=r"\.png, \.pdf or \.svg, not '\.jpg'"):
        canvas.save(figure, tmp_path / "picture.jpg")
    with pytest.raises(DataError, match="No such file"):
        canvas.save(figure, tmp_path / "nowhere" / "picture.png")


@pytest.mark.parametrize("name", ["$a_{b$", r"$\frac{$", r"\$a$", "50 %_^{}", "\x1b[8m", 30 * "$"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_names_are_drawn_as_they_are(name, d):
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.normal(size=(50, 2)), rng.integers(0, 2, 50)])[:, -d:]
    others = (Column("y", unit=name), Column("z", "category", categories=(name, "b")))
    columns = (Column(name), *others)[-d:]
    canvas.png(plots.data_and_samples(values, values, columns, title=name, name=name))


def test_shades_have_no_cells():
    """Shades run on from row to row, and rows of one density have one shade, those at the edge, too."""
    rows = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))
    points = plots.data_and_samples(rows, rows, XY).axes[0].collections[0]
    shades = np.asarray(points.get_array())
    assert len(np.unique(shades)) > 0.9 * len(shades)
    x, y = np.asarray(points.get_offsets()).T
    inner, outer = np.hypot(x, y) < 0.3, np.abs(x) > 0.95
    assert np.median(shades[outer]) == pytest.approx(np.median(shades[inner]), rel=0.25)


def test_a_tail_that_samples_alone_have_is_within_the_axes():
    rng = np.random.default_rng(0)
    real, made = rng.uniform(-2.5, 2.5, (4000, 2)), rng.uniform(-2.5, 2.5, (4000, 2))
    made[7, 0] = -5.0
    for columns in (XY, XY[:1]):
        axes = plots.data_and_samples(real[:, : len(columns)], made[:, : len(columns)], columns)
        assert axes.axes[0].get_xlim()[0] < -5


def test_rows_beyond_the_axes_are_drawn_on_their_edge():
    rows = np.random.default_rng(0).standard_cauchy((20_000, 2))
    axes = plots.data_and_samples(rows, rows, XY).axes[0]
    points = np.asarray(axes.collections[0].get_offsets())
    assert len(points) == 20_000
    assert points[:, 0].min() == pytest.approx(axes.get_xlim()[0])
    assert points[:, 1].max() == pytest.approx(axes.get_ylim()[1])


def test_whole_numbers_have_whole_ticks_and_parts_of_dates_fit_their_rows():
    day = read_table({"day": np.array(["1970-01-01", "1982-01-01"] * 20, object)})
    rows = np.tile([[0.0], [1.0]], (20, 1))
    many = np.repeat(day.values.astype(float), 6, axis=0)[:, 0] + np.arange(240) % 7
    real = np.resize(rows, (240, 1))
    figure = plots.given_slices(real, real, many, day.columns[0], [Column("n", "integer")])
    figure.draw_without_rendering()
    columns = [Column("n", "integer"), Column("m", "integer")]
    for axes in plots.data_and_samples(rows @ [[1, 1]], rows @ [[1, 1]], columns).axes:
        assert all(tick == round(tick) for tick in axes.get_yticks())
    for axes in figure.axes:
        label = axes.yaxis.label.get_window_extent()
        assert label.height < 1.05 * axes.get_window_extent().height


def test_whole_numbers_have_cells_of_equal_size():
    ages = np.random.default_rng(0).integers(17, 91, (20_000, 1)).astype(float)
    axes = plots.data_and_samples(ages, ages, (Column("age", "integer"),)).axes[0]
    heights = np.array([bar.get_height() for bar in axes.containers[0]])
    heights = heights[heights > 0]
    assert heights[1:-1].max() < 1.4 * heights[1:-1].min()


def test_large_numbers_and_long_names_do_not_run_into_each_other():
    rng = np.random.default_rng(0)
    columns = (
        Column("capital gain", "integer"),
        Column("weight"),
        Column(
            "status", "category", categories=tuple(f"Married-civ-spouse {k}" for k in range(15))
        ),
        Column("z"),
        Column("v"),
        Column("w"),
    )
    rows = np.column_stack(
        [rng.integers(0, 100_000, 3000), 1e6 * rng.random(3000), rng.integers(15, size=3000)]
        + [rng.normal(size=3000) for _ in range(3)]
    )
    figure = plots.data_and_samples(rows, rows, columns)
    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            boxes = [
                text.get_window_extent()
                for text in axis.get_ticklabels()
                if text.get_visible() and text.get_text()
            ]
            for one, other in pairwise(boxes):
                assert not one.overlaps(other), axes.get_xlabel()


def test_many_clusters_are_a_density():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(3000, 2)), np.arange(3000) % 13
    few, many = (plots.latent_clusters(points, part) for part in (labels % 12, labels))
    colours = [
        len(np.unique(f.axes[0].collections[0].get_facecolors(), axis=0)) for f in (few, many)
    ]
    few.draw_without_rendering()
    many.draw_without_rendering()
    assert colours[0] == 12
    assert many.axes[0].collections[0].get_array() is not None
    assert {text.get_text() for text in many.axes[0].texts} == {str(k) for k in range(13)}


def test_curves_stand_beside_their_held_out_values_with_the_right_sign(tmp_path):
    lines = [
        {"stage": "mapper", "phase": "likelihood", "step": step, "minus_log_likelihood": 3 - step}
        | ({"held_out": 3.5 - step} if step % 2 == 0 else {})
        for step in range(5)
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, lines)))
    figure = plots.training_curves(tmp_path / "history.jsonl")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_ylabel() == "minus log-likelihood"
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == ["training", "held out"]
    assert not key.get_window_extent().overlaps(axes.get_window_extent())
    held = next(line for line in axes.lines if line.get_label() == "held out")
    assert held.get_xydata().tolist() == [[0, 3.5], [2, 1.5], [4, -0.5]]


@pytest.mark.parametrize(
    ("cells", "labels", "first"),
    [
        (["2012-01-01", "2015-12-31"], ["2012", "2013", "2014", "2015"], 0),
        (["2012-01", "2015-12"], ["2012", "2013", "2014", "2015"], 0),
        (["2024-05-31 18:00:00", "2024-05-31 18:00:40"], ["10", "20", "30", "40"], 10),
    ],
)
def test_the_axis_of_a_column_of_dates_has_dates(cells, labels, first):
    dates = read_table({"day": np.array(cells * 20, object)})
    values = dates.values.astype(float)
    (axes,) = plots.data_and_samples(values, values, dates.columns).axes
    axes.figure.draw_without_rendering()
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert [text for text in shown if text in labels] == labels
    assert axes.get_xlabel() == ("day (2024-May-31\n18:00)" if first else "day")
    place = axes.get_xticks()[shown.index(labels[0])]
    assert place == pytest.approx(values.min() + first, abs=1e-3 * np.ptp(values))


def test_every_column_is_on_a_page(tmp_path):
    names = [f"c{k}" for k in range(14)]
    out = tmp_path / "p.png"
    pages = list(plots.pages(out, names, "all"))
    assert [path.name for path, _ in pages] == ["p-1.png", "p-2.png", "p-3.png"]
    assert [j for _, places in pages for j in places] == list(range(14))
    assert list(plots.pages(out, names, "c3, c1")) == [(out, [3, 1])]
    with pytest.raises(UsageError, match="no column 'x'"):
        list(plots.pages(out, names, "x"))


def test_the_first_row_of_a_matrix_has_its_labels_at_the_right():
    rows = mixed(2000, 0)
    figure = plots.data_and_samples(rows, rows, MIXED)
    figure.draw_without_rendering()
    last = figure.axes[len(MIXED) - 1]
    assert any(
        tick.label2.get_visible() and tick.label2.get_text() for tick in last.yaxis.majorTicks
    )

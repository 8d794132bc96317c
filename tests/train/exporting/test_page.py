"""The page of `scgan page` in Chromium: it shows the rows of `scgan sample`, quickly, to everybody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from browser import NEEDED, RUNTIME, Browser, saved, served, visit

import scgan_infer
from scgan_infer.columns import Table
from scgan_infer.page import write
from scgan_infer.rows.formats import read_table
from scgan_infer.sampling.noise import block_noise
from scgan_train.datasets import fresh

ROOT = Path(__file__).parents[3]
FACTS = "Object.fromEntries([...document.querySelectorAll('dt')].map(e => [e.textContent, e.nextSibling.textContent]))"
TABLE = "[...document.querySelectorAll('#table td')].map(e => e.textContent)"
LOOP = "(() => { let s = 0; for (let i = 0; i < 3e8; i++) s = (s * 31 + i) | 0; return s })()"
LOOP_SECONDS = 1.1  # of LOOP where a cold load takes .8 s by the clock (docs/page.md)
HOSTILE = "<img src=x onerror=alert(1)>"

pytestmark = NEEDED


def altered(bundle: Path, folder: Path, **changes: object) -> Path:
    """Copy a bundle and change its manifest."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "bundle.json").read_bytes())
    (folder / "bundle.json").write_text(json.dumps({**manifest, **changes}))
    return folder


@pytest.fixture(scope="module")
def models(
    mixed_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, scgan_infer.sampling.model.Model]:
    """Two planes, one as if of another latent model and one of other columns, all kinds of them, an old bundle."""
    folder = tmp_path_factory.mktemp("models")
    gaussians = ROOT / "exported" / "eight_gaussians"
    centers = altered(gaussians, folder / "centers", latents="centers")
    squares = ROOT / "exported" / "checkerboard"
    columns = json.loads((squares / "bundle.json").read_bytes())["columns"]
    named = [{**column, "name": f"other {column['name']}"} for column in columns]
    others = altered(squares, folder / "others", columns=named)
    paths = [squares, gaussians, centers, others, mixed_bundle]
    paths += [ROOT / "tests" / "bundles" / "format-1"]
    return {path.name: scgan_infer.load(path, device="cpu") for path in paths}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundles = [model.bundle for model in models.values()]
    rows = {
        one.path: fresh(one.path.name, 2000, 0)
        for one in bundles
        if one.path.parent.name == "exported"
    }
    return write(tmp_path_factory.mktemp("pages") / "page", bundles, rows, RUNTIME)


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as url:
        yield url


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("home"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser, address: str) -> Iterator[Browser]:
    """The browser, which must say nothing and ask nobody else."""
    started.messages.clear()
    started.urls.clear()
    yield started
    assert started.messages == []
    asked = [
        url for url in started.urls if not url.startswith((address, "about:", "data:", "blob:"))
    ]
    assert asked == []


@pytest.mark.parametrize(
    ("name", "state", "asked"),
    [
        ("checkerboard", "", {}),
        ("checkerboard", "&seed=9223372036854775807", {"seed": 2**63 - 1}),
        ("checkerboard", "&cluster=3&temperature=0.5", {"cluster": 3, "temperature": 0.5}),
        ("format-1", "", {}),
        ("format-1", "&cluster=1", {"cluster": 1}),
        ("mixed", "&seed=7", {"seed": 7}),
        ("mixed", "&cluster=2", {"cluster": 2}),
    ],
)  # fmt: skip
def test_rows_are_those_of_scgan_sample(browser, address, models, tmp_path, name, state, asked):
    visit(browser, address, f"bundle={name}&n=5000{state}")
    model = models[name]
    found = read_table(saved(browser, tmp_path), columns=model.columns).values.astype(float)
    expected = model.sample(5000, **asked).astype(float)
    assert found.shape == expected.shape
    spread = model.sample(5000).astype(float).std(axis=0)  # of the columns, not of one cluster
    gap = np.abs(found - expected) / np.where(spread > 0, spread, 1.0)
    for j, column in enumerate(model.columns):
        if column.period:
            gap[:, j] = np.minimum(gap[:, j], column.period / spread[j] - gap[:, j])
    other = gap.max(axis=1) > 1e-5
    chained = model.manifest.sizes["h"] > 1
    assert other.mean() <= (2e-4 if chained else 0.0), gap.max()


def test_it_is_quick(browser, address):
    """First samples within 3 s of a cold load, 100,000 rows within 1 s, of processor time: others may want it too.

    A machine at work, or an old one, gets as much more time as it needs for a plain loop.
    """
    first, rows, slowness = [], [], []
    browser.call("Network.setCacheDisabled", cacheDisabled=True)
    browser.call("Performance.enable", timeDomain="threadTicks")
    for seed in range(4):
        before = browser.seconds()
        visit(browser, address, anew=True)
        first.append(browser.seconds() - before)
        before = busy(browser)
        visit(browser, address, f"bundle=checkerboard&n=100000&seed={seed}")
        rows.append(busy(browser) - before)
        before = browser.seconds()
        browser.run(LOOP)
        slowness.append(max(1.0, (browser.seconds() - before) / LOOP_SECONDS))
        if first[-1] < 3 * slowness[-1] and rows[-1] < slowness[-1]:
            break
    browser.call("Performance.disable")
    browser.call("Network.setCacheDisabled", cacheDisabled=False)
    print(
        f"first samples {first} s, 100,000 rows {rows} s, slower than the reference {slowness} times"
    )
    assert min(np.divide(first, slowness)) < 3
    assert min(np.divide(rows, slowness)) < 1


def busy(browser: Browser) -> float:
    """Return for how long the page's thread has computed."""
    metrics = browser.call("Performance.getMetrics")["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def test_the_address_holds_the_state(browser, address):
    visit(browser, address)
    for name, value in {
        "bundle": "eight_gaussians",
        "n": 500,
        "seed": 3,
        "temperature": 0.5,
        "sample": 4,
    }.items():
        browser.set(name, value)
    browser.wait(
        "document.getElementById('status').textContent.startsWith('500 rows of eight_gaussians, seed 3')"
    )
    wanted = browser.run(TABLE)
    state = browser.run("location.hash.slice(1)")
    assert parse_qs(state) == {
        "bundle": ["eight_gaussians"],
        "n": ["500"],
        "seed": ["3"],
        "temperature": ["0.5"],
        "sample": ["4"],
    }
    visit(browser, address, state, anew=True)
    assert browser.run(TABLE) == wanted
    assert browser.run(
        "['n', 'seed', 'temperature', 'sample'].map(id => document.getElementById(id).value)"
    ) == ["500", "3", "0.5", "4"]


def test_a_sample_that_is_pointed_at_shows_its_noise_which_moves_along_a_line(
    browser, address, models
):
    visit(browser, address, "bundle=eight_gaussians&n=50")
    x, y = browser.run(
        """(box => {
          const pen = document.getElementById('samples').getContext('2d')
          for (let y = 20; y < box.height - 40; y++) for (let x = 50; x < box.width - 10; x++) {
            const [r, g, b] = pen.getImageData(x, y, 1, 1).data
            if (Math.max(r, g, b) - Math.min(r, g, b) > 60) return [box.left + x, box.top + y]
          }
        })(document.getElementById('samples').getBoundingClientRect())"""
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    facts = browser.wait(f"(f => f.w ? f : null)({FACTS})")
    u, w, z = block_noise(0, 0, 2, 0)
    i = int(browser.run("document.getElementById('sample').value"))
    np.testing.assert_allclose(float(facts["u"]), u[i], atol=1e-6)
    np.testing.assert_allclose([float(part) for part in facts["w"].split(",")], w[i], atol=1e-4)
    browser.set("sample", i)
    browser.set("along", "w2")
    browser.set("at", 1.25)
    moved = browser.wait(f"({FACTS})['row where w 2 is 1.25']")
    w[i, 1] = 1.25
    (expected,) = models["eight_gaussians"].run("generator.onnx", u=u, w=w, z=z)
    found = [float(cell.rpartition(" ")[2]) for cell in moved.split(",")]
    np.testing.assert_allclose(found, expected[i], atol=1e-5)


def test_the_last_of_many_changes_wins(browser, address):
    visit(browser, address, "bundle=eight_gaussians&n=9000")
    for seed in range(10, 18):
        browser.set("seed", seed)
    browser.wait(
        "/rows of eight_gaussians, seed 17,/.test(document.getElementById('status').textContent)"
    )
    many = browser.run(TABLE)
    visit(browser, address, "bundle=eight_gaussians&n=9000&seed=17")
    assert browser.run(TABLE) == many


def test_play_step_and_reset(browser, address):
    visit(browser, address, "bundle=eight_gaussians&n=300")
    label = "document.getElementById('samples').ariaLabel"
    assert browser.run(label) == "300 samples, x across, y up"
    browser.run("document.getElementById('reset').click()")
    assert browser.run(label) == "0 samples, x across, y up"
    browser.run("document.getElementById('step').click()")
    assert browser.run(label) == "1 samples, x across, y up"
    assert browser.run("document.getElementById('sample').value") == "0"
    browser.run("document.getElementById('play').click()")
    browser.wait("document.getElementById('status').textContent === '300 of 300 rows shown.'")
    assert browser.run(label) == "300 samples, x across, y up"


def test_latent_models_of_the_same_data_stand_side_by_side(browser, address):
    visit(browser, address, "bundle=eight_gaussians")
    captions = browser.wait(
        "(a => a.length ? a : null)([...document.querySelectorAll('#compared figcaption')].map(e => e.textContent))"
    )
    titles = browser.run("[...document.querySelectorAll('#compared h3')].map(e => e.textContent)")
    assert titles == ["noisy cluster centres", "a map for each cluster"]
    for name, caption in zip(["centers", "eight_gaussians"], captions, strict=True):
        assert caption.startswith(f"{name}: ")
        assert float(caption.split()[1]) < 3
    browser.set("bundle", "checkerboard")
    browser.wait("document.getElementById('side').hidden")
    assert browser.run("document.getElementById('title').textContent") == "scgan: checkerboard"


def test_all_columns_are_drawn_and_those_that_are_ticked_in_pairs(browser, address, models):
    visit(browser, address, "bundle=mixed&n=2000")
    columns = models["mixed"].columns
    captions = browser.run(
        "[...document.querySelectorAll('#histograms label')].map(e => e.textContent)"
    )
    assert captions == [column.name for column in columns]
    for j in (1, 3, 6):
        browser.run(f"document.querySelectorAll('#histograms input')[{j}].click()")
    labels = browser.run("[...document.querySelectorAll('#pairs canvas')].map(e => e.ariaLabel)")
    assert labels[:4] == [
        "Histogram of pt",
        "pt against share, samples",
        "pt against species, samples",
        "share against pt, samples",
    ]
    assert parse_qs(browser.run("location.hash.slice(1)"))["pairs"] == ["1 3 6"]


def test_files_of_the_user_are_taken(browser, address, tmp_path):
    visit(browser, address, "bundle=mixed&n=500")

    def choose(*files: Path) -> None:
        node = browser.call(
            "DOM.querySelector",
            nodeId=browser.call("DOM.getDocument")["root"]["nodeId"],
            selector="#files",
        )
        browser.call(
            "DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node["nodeId"]
        )

    rows = tmp_path / "rows.csv"
    rows.write_text(
        'same;species;depth;count;share;phi;pt;r\n7.5;b;2.5;40;0.5;10;2;3\n7.5;"c";2.25;41;0.25;20;3;6\n'
    )
    choose(rows)
    browser.wait(
        "document.getElementById('status').textContent === 'Real rows of rows.csv: 2 shown beside samples.'"
    )
    assert (
        browser.run("document.getElementById('real').ariaLabel") == "2 real rows, on the same axes"
    )
    rows.write_text("r,pt\n1,2\n")
    choose(rows)
    assert "no column phi, share" in browser.wait(
        "document.querySelector('#status.bad')?.textContent"
    )
    given = ROOT / "exported" / "abs"
    choose(*given.glob("*"))
    browser.wait("/rows of abs, yours/.test(document.getElementById('status').textContent)")
    first = scgan_infer.load(given, device="cpu").sample(10)
    np.testing.assert_allclose(np.array(browser.run(TABLE), float).reshape(10, 2), first, atol=1e-5)
    spoilt = altered(given, tmp_path / "spoilt")
    (spoilt / "decoder.onnx").write_bytes(b"something else")
    choose(*spoilt.glob("*"))
    assert "decoder.onnx is not the file" in browser.wait(
        "document.querySelector('#status.bad')?.textContent"
    )


def test_what_a_control_can_not_be_is_said(browser, address):
    visit(browser, address)
    browser.set("seed", "-1")
    assert "seed -1 is not" in browser.wait("document.querySelector('#status.bad')?.textContent")
    browser.set("seed", "1")
    browser.set("n", "0")
    assert "rows: 0 is not" in browser.wait("document.querySelector('#status.bad')?.textContent")


def test_keyboard_and_screen_reader_reach_everything(browser, address):
    visit(browser, address, "bundle=eight_gaussians&n=100")
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    spoken = [
        (n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]
    ]
    controls = {"button", "slider", "spinbutton", "textbox", "combobox", "image", "checkbox"}
    assert len([name for role, name in spoken if role in controls]) >= 20
    assert [role for role, name in spoken if role in controls and not name] == []
    assert any(role == "status" for role, _ in spoken)
    reached = set()
    for _ in range(40):
        browser.call(
            "Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9
        )
        reached.add(browser.run("document.activeElement.id"))
    assert reached >= {
        "bundle",
        "play",
        "step",
        "reset",
        "download",
        "n",
        "seed",
        "temperature",
        "cluster",
        "samples",
        "sample",
        "along",
        "at",
    }
    browser.run("document.getElementById('samples').focus()")
    for _ in range(3):
        browser.call(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key="ArrowRight",
            code="ArrowRight",
            windowsVirtualKeyCode=39,
        )
    assert browser.run("document.getElementById('sample').value") == "2"


def test_foreign_text_stays_text(browser, models, tmp_path):
    bundle = ROOT / "exported" / "abs"
    manifest = json.loads((bundle / "bundle.json").read_bytes())
    columns = [{"kind": "real", "name": HOSTILE}, {"kind": "real", "name": "y"}]
    provenance = {**manifest["provenance"], "source": HOSTILE}
    hostile = altered(bundle, tmp_path / "a b&c", columns=columns, provenance=provenance)
    page = write(tmp_path / "page", [scgan_infer.load(hostile, device="cpu").bundle], {}, RUNTIME)
    with served(page) as url:
        visit(browser, url)
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert (
            browser.run("document.querySelector('#table th:nth-child(2)').textContent") == HOSTILE
        )
        assert HOSTILE in browser.run("document.getElementById('origin').textContent")
        assert browser.run("document.title") == "a b&c: scgan"
        browser.urls = [one for one in browser.urls if not one.startswith(url)]


COUNTED = [
    {
        "name": "day",
        "kind": "datetime",
        "resolution": "D",
        "pattern": "YYYY-MM-DD",
        "anchor": 19000.0,
    },
    {"name": "id", "kind": "integer", "anchor": 1e12},
    {"name": "month", "kind": "datetime", "resolution": "M", "pattern": "YYYY/MM"},
    {
        "name": "moment",
        "kind": "datetime",
        "resolution": "us",
        "pattern": "YYYY/MM/DD hh:mm:ss.ffffff+02:00",
        "anchor": 1.7e15,
    },
    {"name": "fine", "kind": "real", "anchor": 100000.0, "decimals": 3},
    {"name": "exact", "kind": "real", "anchor": 123456.7890625},
]


@pytest.mark.parametrize("pair", [COUNTED[:2], COUNTED[2:4], COUNTED[4:]])
def test_dates_and_large_numbers_are_spelt_and_read_as_scgan_does(browser, models, tmp_path, pair):
    bundle = altered(ROOT / "exported" / "abs", tmp_path / "counted", columns=pair)
    model = scgan_infer.load(bundle, device="cpu")
    rows = Table(model.columns, model.sample(300))
    page = write(tmp_path / "page", [model.bundle], {bundle: rows}, RUNTIME)
    with served(page) as url:
        visit(browser, url, "n=300")
        found = saved(browser, tmp_path).read_text()
        assert browser.run("document.getElementById('real').ariaLabel").startswith("300 real rows")
        browser.urls = [one for one in browser.urls if not one.startswith(url)]
    expected = (page / "bundles" / "counted" / "rows.csv").read_text()
    if "exact" in expected:
        numbers = [np.loadtxt(text.splitlines()[1:], delimiter=",") for text in (found, expected)]
        np.testing.assert_allclose(*numbers, rtol=0, atol=1e-5)
    else:
        same = [a == b for a, b in zip(found.splitlines(), expected.splitlines(), strict=True)]
        assert np.mean(same) > 0.98  # a last digit may be rounded the other way

"""The page: well-formed, self-contained, with every figure, its sentence and the pictures whole."""

import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest

from scgan_infer.columns import Column
from scgan_infer.judging.conditional import Conditional, Ranks, Slice
from scgan_infer.judging.figures import FIGURES, evaluate
from scgan_infer.judging.layout import formatted
from scgan_infer.judging.report import html

pytest.importorskip("sklearn")

PICTURE = b"\x89PNG\r\n\x1a\nnot looked at"
VOID = {"meta", "img"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.fixture(scope="module")
def figures():
    rng = np.random.default_rng(0)
    rows, columns = rng.standard_normal((400, 2)), [Column("<x>"), Column("a & b")]
    clusters = rng.integers(40, size=400)
    return evaluate(
        rows,
        rows[:200] + 1,
        columns=columns,
        train=rows,
        reconstructed=(rows, rows + 0.01),
        clusters=(clusters, clusters),
    )


@pytest.fixture(scope="module")
def page(figures):
    return Page(
        html(figures, {"Data & samples": PICTURE}, "moons <script>", facts={"model": 'a "b"'})
    )


def test_the_page_is_well_formed_and_needs_nothing_else(figures, page):
    assert page.open == []
    assert {"script", "link", "iframe", "base", "object"}.isdisjoint(tag for tag, _ in page.tags)
    sources = [of["src"] for _, of in page.tags if "src" in of]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(of["href"].startswith("#") for _, of in page.tags if "href" in of)
    assert "url(" not in html(figures, {}, "")


def test_every_figure_has_its_value_its_floor_and_its_sentence(figures, page):
    assert set(figures.overall) == set(FIGURES)
    for name, figure in figures.overall.items():
        of = FIGURES[name]
        at = page.words.index(f"{of.meaning}; {of.details}")
        cells = [word for word in page.words[:at] if word][-4:]
        assert cells == [of.title, *formatted(name, figure)]


def test_figures_of_the_verdict_lead_to_their_sentences(page):
    links = [of["href"][1:] for _, of in page.tags if "href" in of]
    lines = [of["id"] for tag, of in page.tags if tag == "tr" and "id" in of]
    assert "c2st" in links
    assert set(links) <= set(lines) == set(FIGURES)


def test_names_are_escaped_and_pictures_are_whole(page):
    assert {"moons <script>", "<x>", "a & b", 'a "b"', "Data & samples"} <= set(page.words)
    (image,) = (of for tag, of in page.tags if tag == "img")
    assert b64decode(image["src"].split(",")[1]) == PICTURE
    assert image["alt"] == "Data & samples"


def test_long_tables_are_cut_and_say_so(page):
    assert "and 10 more" in page.words
    assert sum(bool(re.fullmatch(r"\d+", word)) for word in page.words) == 30


def test_conditional_figures_stand_behind_the_others(figures):
    ranks = Ranks("<x>", 0.25, (0.68, 0.953))
    slices = [Slice("a & b", f"slice {k}", 50 + k, 0.9 - k / 100) for k in range(35)]
    more = Conditional((ranks,), tuple(slices)).tables()
    page = Page(html(figures, {}, "", more=more))
    assert page.open == []
    words = [word for word in page.words if word]
    at = words.index("p of uniform ranks")
    assert words[at - 1 : at + 7] == [
        *("column", "p of uniform ranks", "middle 68%", "middle 95%"),
        *("<x>", "0.25", "68.0%", "95.3%"),
    ]
    at = words.index("slice 0")
    assert words[at - 1 : at + 4] == ["a & b", "slice 0", "0.900", "50", "a & b"]
    assert "and 5 more" in words
    assert "slice 30" not in words

"""A page of figures and pictures in one HTML file: no script, no link, nothing to fetch."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

from scgan_infer.judging.figures import FIGURES, Figures
from scgan_infer.judging.layout import Table, details, formatted, heading, in_words, verdict

MOST_LINES = 30

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem }
p { margin: .5rem 0; max-width: 46rem }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .9rem .35rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid #ddd }
th { font-weight: 600; border-bottom: 2px solid #888; white-space: nowrap }
th:first-child, td:first-child, .words { text-align: left }
td { white-space: nowrap } td.words { white-space: normal; color: #444 }
img { max-width: 100%; height: auto; display: block } figure { margin: 1rem 0 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .8rem 0 }
tr:target { background: #fff3c4 } a { color: inherit }
dt { color: #666 } dd { margin: 0; overflow-wrap: anywhere }
"""


def html(
    figures: Figures,
    pictures: Mapping[str, bytes],
    title: str,
    *,
    facts: Mapping[str, str] | None = None,
    more: Mapping[str, Table] | None = None,
) -> str:
    """Lay out figures, PNG pictures by caption and `more` tables by caption as one page of HTML.

    Facts say by name what was measured: the model, the data, the date, the command.
    """
    overall = [
        (measure.title, *formatted(name, figure), f"{measure.meaning}; {measure.details}")
        for name, figure in figures.overall.items()
        for measure in [FIGURES[name]]
    ]
    known = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in (facts or {}).items()
    )
    shown = "".join(
        f"<h2>{escape(caption)}</h2><figure><img alt='{escape(caption)}'"
        f" src='data:image/png;base64,{b64encode(picture).decode()}'></figure>"
        for caption, picture in pictures.items()
    )
    tables = {**details(figures), **(more or {})}
    below = "".join(
        f"<h2>{escape(name)}</h2>{_table(table[: MOST_LINES + 1])}{_left_out(len(table) - 1)}"
        for name, table in tables.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p><strong>{_linked(figures)}</strong></p>
<dl>{known}</dl>
<h2>Figures</h2>
<p>{escape(heading(figures))}, which is what a perfect generator would score. A column's spread is
its standard deviation, of a log column in logarithms.</p>
{_table([("figure", "value", "floor", "±", "what it says"), *overall], list(figures.overall))}
{shown}
{below}
</body>
</html>
"""


def _linked(figures: Figures) -> str:
    """Return the verdict, where each figure leads to its line below and what that says."""
    text = escape(str(verdict(figures)))
    for name, figure in figures.overall.items():
        words = escape(in_words(name, figure))
        text = text.replace(words, f"<a href='#{name}'>{words}</a>")
    return text


def _left_out(total: int) -> str:
    return f"<p>and {total - MOST_LINES} more</p>" if total > MOST_LINES else ""


def _table(rows: Sequence[Sequence[str]], names: Sequence[str] = ()) -> str:
    """Return a table of text, head first; `names` are those of its lines, for links."""
    head, *body = rows

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [" class='words'" if name == "what it says" else "" for name in head]
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
        )

    marks = [f" id='{name}'" for name in names] or [""] * len(body)
    lines = "\n".join(
        f"<tr{mark}>{line(cells, 'td')}</tr>" for mark, cells in zip(marks, body, strict=True)
    )
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>\n{lines}\n</tbody></table>"

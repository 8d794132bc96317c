"""The model card of a bundle, in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from scgan_infer.bundle import Manifest
from scgan_infer.bundle.interfaces import OPTIONAL, Tensors
from scgan_infer.bundle.onnx_schema import INT64
from scgan_infer.text import visible

MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~&$])")


def card(manifest: Manifest) -> str:
    """Return the card: training data, figures of quality, and calls."""
    facts, metrics, sizes = manifest.provenance, manifest.metrics, manifest.sizes
    names = {one.column.name for one in manifest.given}
    rows = [
        f"| {plain(c.name)} | {c.kind}{', given' if c.name in names else ''} "
        f"| {plain(c.unit or '-')} |"
        for c in manifest.whole
    ]
    many = ("--given conditions.csv", 'given="conditions.csv"') if names else ("--n 10000", "10000")
    figures = [f"| {name} | {value:.4g} |" for name, value in metrics.items() if name != "notes"]
    notes = "".join(f"\nNote: {plain(note)}.\n" for note in metrics.get("notes", []))
    map_name = f" ({manifest.mapper})" if manifest.mapper else ""
    source = visible(facts["source"]).replace("`", "'")
    return f"""{front_matter(manifest)}
# {plain(manifest.name)}

![held-out rows beside samples](preview.png)

A generator of rows like those of `{source}`, made by scgan {facts["scgan"]} \
from {facts["rows"]} rows
(5 %, at most 10,000, held out of training). Latent model: {manifest.latents}{map_name}, \
{sizes["K"]} clusters.
{_method(facts["config"], manifest.latents)}
Not for statements about single rows of the training data; \
it holds no information that the data did not have.

| column | kind | unit |
| --- | --- | --- |
{chr(10).join(rows)}

| figure on held-out rows | value |
| --- | --- |
{chr(10).join(figures)}

`c2st` is the ROC AUC of a classifier that tells samples from held-out rows (0.5: it can't); \
`mse` is the mean squared
error of reconstructions in units of each column's variance.
{notes}
```
scgan sample --model . {many[0]} --out samples.csv
```

```python
import scgan_infer

model = scgan_infer.load(".")
rows = model.sample({many[1]}, seed=0)
```

| graph | inputs | outputs |
| --- | --- | --- |
{chr(10).join(_calls(manifest))}

u = k / 2^24 with k uniform in 0..2^24-1, w and z (where there is one) standard normal, \
z = 0 reconstructs.
"""


def front_matter(manifest: Manifest) -> str:
    """Return the metadata that model hubs read: YAML, of which JSON is a subset."""
    kinds = sorted({column.kind for column in manifest.columns})
    entries = {
        "library_name": "scgan",
        "model_name": visible(manifest.name),
        "tags": ["tabular", "synthetic-data", "generative", "onnx", "scgan", *kinds],
        "metrics": [name for name in ("c2st", "mse") if name in manifest.metrics],
    }
    lines = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())
    return "\n".join(["---", *lines, "---"])


def plain(text: str) -> str:
    r"""Return untrusted text escaped for Markdown.

    >>> print(plain("<b>|p_T"))
    \<b\>\|p\_T
    """
    return MARKDOWN.sub(r"\\\1", visible(text))


def _method(config: dict[str, Any], latents: str) -> str:
    """Return a sentence naming the parts of the paper's method that these settings leave out."""
    parts = {
        "the perceptron encoder": config["encoder"]["kind"] == "mlp",
        "plain K-means": not (config["clusters"]["refine"] or config["clusters"]["split"]),
        "adversarial autoencoders": config["mapper"]["kind"] == "aae" or latents != "mapper",
        "the decoder's critics": config["decoder"]["steps"] > 0,
    }
    missing = [part for part, used in parts.items() if not used]
    rest = f"all but {', '.join(missing)}" if missing else "the whole"
    return f"Of the method of Drozdova et al. (2021) it has {rest} (docs/paper.md, --preset paper)."


def _calls(manifest: Manifest) -> Iterator[str]:
    """Yield a line of the table of graphs for each of the bundle's."""

    def listed(tensors: Tensors) -> str:
        return ", ".join(
            f"{name} [{','.join(str(size or 'n') for size in shape)}]"
            + (" int64" if dtype == INT64 else "")
            for name, (dtype, shape) in tensors.items()
        )

    for name, (inputs, outputs) in manifest.interfaces.items():
        if name not in OPTIONAL:
            yield f"| {name} | {listed(inputs)} | {listed(outputs)} |"

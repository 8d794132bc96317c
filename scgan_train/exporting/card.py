"""What a bundle says of itself: a card in Markdown and a picture of held-out rows beside samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgan_infer.bundle import Manifest
from scgan_infer.columns import Column


def preview(
    real: NDArray[np.float32], made: NDArray[np.float32], columns: tuple[Column, ...], title: str
) -> bytes:
    """Return a PNG of held-out rows [n, d] beside as many samples."""
    from scgan_infer.judging import plots

    return plots.preview(real, made, columns, title)


def card(manifest: Manifest) -> str:
    """Return the card: what the bundle was trained on, how good it is, how to call it."""
    facts, metrics, sizes = manifest.provenance, manifest.metrics, manifest.sizes
    rows = [f"| {c.name} | {c.kind} | {c.unit or '-'} |" for c in manifest.columns]
    figures = [f"| {name} | {value:.4g} |" for name, value in metrics.items() if name != "notes"]
    notes = "".join(f"\nNote: {note}.\n" for note in metrics.get("notes", []))
    map_name = f" ({manifest.mapper})" if manifest.mapper else ""
    return f"""# {manifest.name}

![held-out rows beside samples](preview.png)

A generator of rows like those of `{facts["source"]}`, made by scgan {facts["scgan"]} from {facts["rows"]} rows
(5 %, at most 10,000, held out of training). Latent model: {manifest.latents}{map_name}, {sizes["K"]} clusters.
Not for statements about single rows of the training data; it holds no information that the data did not have.

| column | kind | unit |
| --- | --- | --- |
{chr(10).join(rows)}

| figure on held-out rows | value |
| --- | --- |
{chr(10).join(figures)}

`c2st` is the ROC AUC of a classifier that tells samples from held-out rows (0.5: it can't); `mse` is the mean squared
error of reconstructions in units of each column's variance.
{notes}
```
scgan sample --model . --n 10000 --out samples.csv
```

```python
import scgan_infer

model = scgan_infer.load(".")
rows = model.sample(10000, seed=0)
```

| graph | inputs | outputs |
| --- | --- | --- |
| encoder.onnx | x [n,{sizes["d"]}] | latent [n,{sizes["e"]}], cluster [n] |
| mappers.onnx | u [n], w [n,{sizes["m"]}] | latent [n,{sizes["e"]}], cluster [n] |
| decoder.onnx | latent [n,{sizes["e"]}], z [n,{sizes["q"]}] | x [n,{sizes["d"]}] |
| generator.onnx | u [n], w [n,{sizes["m"]}], z [n,{sizes["q"]}] | x [n,{sizes["d"]}] |
| sampler.onnx | seed [1] int64, index [n] int64 | x [n,{sizes["d"]}] |

u = k / 2^24 with k uniform in 0..2^24-1, w and z standard normal, z = 0 reconstructs.
"""

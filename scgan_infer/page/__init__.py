"""A page that samples bundles in the browser: a folder that any web server can hand out.

    DIR/index.html, page.css, *.js       the files beside this one
    DIR/page.json                        [{name, data: hash of what it was trained on, latents,
                                         rows: any?}, ...]
    DIR/bundles/NAME/bundle.json, *.onnx a bundle's manifest, and the graphs that the page runs
    DIR/bundles/NAME/rows.csv            real rows to show beside samples
    DIR/runtime/ort.js, ort.wasm         onnxruntime-web (MIT licence), from its npm package

The page asks for nothing outside the folder; its files have names that every server knows the type
of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scgan_infer.bundle import Bundle
from scgan_infer.bundle.folder import MAX_MANIFEST, read
from scgan_infer.bundle.manifest import FILE
from scgan_infer.columns import Table
from scgan_infer.errors import ChecksumError, UsageError
from scgan_infer.files import write_folder
from scgan_infer.rows.codecs.text import csv_stream

MARK = "page.json"
ASSETS = (
    "index.html", "page.css", "page.js", "elements.js", "bundle.js", "noise.js", "csv.js",
    "draw.js", "planes.js", "columns.js", "models.js", "entries.js", "sample.js",
)  # fmt: skip
GRAPHS = ("encoder.onnx", "head.onnx", "mappers.onnx", "decoder.onnx")
PACKAGE = "onnxruntime-web"
TESTED = f"{PACKAGE}@1.30.0"
RUNTIME = {"ort.js": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}


def write(
    path: str | Path,
    bundles: Sequence[Bundle],
    rows: Mapping[Path, Table],
    runtime: Path | None = None,
) -> Path:
    """Write a page for bundles and return its folder, whole or not at all, in an older one's place.

    Real rows come by their bundle's path, onnxruntime-web from the folder of its npm package, or
    the nearest node_modules.

    Raises:
        UsageError: two bundles of one name, no onnxruntime-web, or something that is no page at
            `path`.
        ChecksumError: a bundle changed since it was loaded.
        DataError: the folder can't be written.
    """
    path = Path(path).absolute()
    names = [bundle.path.resolve().name for bundle in bundles]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two bundles are called {min(twice)}: rename the folder of one")
    shown = [
        {
            "name": name,
            "data": bundle.manifest.provenance.get("sha256", name),
            "latents": bundle.manifest.latents,
            "rows": bundle.path in rows,
        }
        for name, bundle in zip(names, bundles, strict=True)
    ]
    contents = {name: (Path(__file__).parent / name).read_bytes() for name in ASSETS}
    contents |= _runtime(runtime)
    for name, bundle in zip(names, bundles, strict=True):
        files = _files(bundle)
        if bundle.path in rows:
            table = rows[bundle.path]
            files["rows.csv"] = csv_stream(table.columns).file(table.values)
        contents |= {f"bundles/{name}/{file}": data for file, data in files.items()}
    contents[MARK] = json.dumps(shown, indent=1).encode()
    write_folder(path, contents, "runtime/ort.wasm", "page")
    return path


def _files(bundle: Bundle) -> dict[str, bytes]:
    """Return the manifest of a bundle, as its maker wrote it, and the graphs that the page runs."""
    manifest = read(bundle.path, FILE, MAX_MANIFEST)
    if hashlib.sha256(manifest).hexdigest() != bundle.sha256:
        raise ChecksumError(f"{bundle.path} changed while it was read; try again")
    return {
        FILE: manifest,
        **{name: bundle.graphs[name] for name in GRAPHS if name in bundle.graphs},
    }


def _runtime(folder: Path | None) -> dict[str, bytes]:
    """Return the two files of onnxruntime-web that the page needs."""
    if folder is None:
        here = Path.cwd()
        near = (place / "node_modules" / PACKAGE for place in (here, *here.parents))
        folder = next((place for place in near if place.is_dir()), None)
    if folder is None:
        raise UsageError(
            f"no {PACKAGE} in node_modules here or above: npm install {TESTED}, "
            "or name its folder as runtime"
        )
    files = {name: folder / "dist" / file for name, file in RUNTIME.items()}
    try:
        return {f"runtime/{name}": file.read_bytes() for name, file in files.items()}
    except OSError as error:
        raise UsageError(
            f"runtime {folder} is not the npm package {PACKAGE}: {error.filename} "
            f"can't be read ({error.strerror}); npm install {TESTED} makes node_modules/{PACKAGE}"
        ) from None

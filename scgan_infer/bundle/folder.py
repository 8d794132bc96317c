"""The bundle: a trained model as a folder that needs none of this code to run.

    NAME/bundle.json      the manifest: UTF-8 JSON, at most 1 MiB, all numbers finite
      format              2; read first. A reader takes all formats from 1 to its own. A change
                          that older readers would get wrong raises the number. A key may be added
                          without: readers skip unknown keys. No key ever changes its meaning.
      name                what it was trained on
      columns             [{name, kind, unit, period, low, high, categories, decimals, missing},
                          ...], see `columns`
      sizes               {d: columns, e: latents, m: mapper noise, q: decoder noise, K: clusters,
                          h: steps of choice, 1 without discrete values, g: given columns}
      given               if any: [{column: as in `columns`, place: among all columns, low, high:
                          least and greatest number seen, null of names}, ...], in the order of c
      steps               what each step of choice but the last, the cluster, draws: [{column:
                          its index, values: by outcome, null for a missing cell, rest: whether the
                          outcome behind the last value says that another number stands, remainder:
                          true where a value is the cell less what other columns imply}, ...]
      latents, mapper     latent model (gaussian, centers, mapper, real); kind of map, "" if none
      thresholds          K integers that do not fall, the last 2^24; u = k / 2^24 selects cluster
                          i if thresholds[i-1] <= k < thresholds[i]; with h > 1 or g > 0 the
                          clusters' shares of the rows
      opset               18
      files               {file name: {sha256, bytes}} of the files below
      provenance, metrics, parity      what it was made from, how good it is, vectors to replay
    NAME/encoder.onnx     x [n,d] -> latent [n,e], choice [n] int64
    NAME/mappers.onnx     u [n], w [n,m] -> latent [n,e], choice [n] int64
    NAME/decoder.onnx     latent [n,e], choice [n,h] where h > 1, z [n,q] -> x [n,d]
    NAME/generator.onnx   u [n], w [n,m], z [n,q] -> x [n,d]
    NAME/sampler.onnx     seed [1] int64, index [n] int64 -> x [n,d], its own noise inside
    NAME/head.onnx        u [n,h] -> choice [n,h] int64, where h > 1 or g > 0
    NAME/density.onnx     optional: x [n,d] -> log_density [n], user's units; -inf outside domains,
                          NaN if a cell is missing or drawn outright that is a number in other rows
    NAME/preview.png, NAME/card.md      always written; a bundle without is read, but one
                          that `files` does not name is refused, so that a signature covers all
    NAME/bundle.sig       optional: 64 bytes, the maker's Ed25519 signature of bundle.json's bytes

With h > 1, u is [n,h] and choice [n,h] everywhere; x holds NaN for a missing cell. With g > 0 every
graph but the decoder takes the given columns too, as its last input c [n,g]. Graphs are float32 but
for choice, seed and index, in IR 8 and opset 18, and keep the rules of `rules`; `interfaces` has
their inputs and outputs. Where no decoder noise was trained q is 0 and there is no z. Equal content
gives equal bytes: no dates, no machine.

A bundle may come from a stranger. `load` opens only the names above, follows no link inside the
folder, reads each file once up to a cap (64 MiB a graph), and hands on the very bytes whose SHA-256
it has checked.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from scgan_infer.bundle.manifest import EXTRAS, FILE, FORMAT, Manifest
from scgan_infer.bundle.rules import MAX_BYTES, check
from scgan_infer.errors import ChecksumError, ModelError
from scgan_infer.files import CAREFUL, write_folder

MAX_MANIFEST = 2**20
SIGNATURE = "bundle.sig"


@dataclass(frozen=True)
class Bundle:
    """A bundle that has been read and checked.

    Attributes:
        path: the folder.
        manifest: the contents of `bundle.json`.
        sha256: of `bundle.json` and so, through it, of all files: the bundle's identity.
        graphs: the bytes of each graph by file name; `graph` returns those that may run.
    """

    path: Path
    manifest: Manifest
    sha256: str
    graphs: dict[str, bytes] = field(repr=False)
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)

    def graph(self, name: str) -> bytes:
        """Return the bytes of a graph that keeps the rules.

        Raises:
            ModelError: it breaks one.
        """
        if name not in self._checked:
            try:
                check(name, self.graphs[name], self.manifest.interfaces[name])
            except ModelError as error:
                raise ModelError(f"{self.path}: {error}") from None
            self._checked.add(name)
        return self.graphs[name]


def save(
    path: str | Path,
    manifest: Manifest,
    graphs: Mapping[str, bytes],
    extras: Mapping[str, bytes],
) -> Path:
    """Write a bundle and return its folder: complete or not at all, in an older bundle's place.

    The manifest's `files` are computed anew from the bytes of graphs and `EXTRAS`; its format is
    this writer's.

    Raises:
        ModelError: `load` would refuse the bundle, or a file is missing.
        UsageError: something that is not a bundle is at `path`.
        DataError: the folder can't be written.
    """
    path = Path(path).absolute()
    if missing := [name for name in EXTRAS if name not in extras]:
        raise ModelError(f"a bundle has a {' and a '.join(missing)}, which its manifest names")
    contents = {**graphs, **extras}
    files = {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in contents.items()}
    contents[FILE] = replace(manifest, files=files, format=FORMAT).to_json()
    if len(contents[FILE]) > MAX_MANIFEST:
        raise ModelError(f"{FILE} would have {len(contents[FILE])} bytes, more than {MAX_MANIFEST}")
    checked = Manifest.from_json(contents[FILE])
    for name, data in graphs.items():
        check(name, data, checked.interfaces[name])
    write_folder(path, contents, FILE, "bundle")
    return path


def load(path: str | Path, *, lazy: bool = False) -> Bundle:
    """Read and check a bundle: schema, checksums, graph rules; if lazy, these as a graph is used.

    Raises:
        ModelError: not a bundle, of a newer format, or with a graph that breaks a rule.
        ChecksumError: a file is not the one that the manifest names.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelError(
            f"no bundle at {path}: a bundle is a folder with a {FILE} (scgan export makes one)"
        )
    if (path / "run.json").exists() and not (path / FILE).exists():
        raise ModelError(
            f"{path} is a run, not a bundle; make one of it: scgan export {quote(str(path))}"
        )
    try:
        data = read(path, FILE, MAX_MANIFEST)
        manifest = Manifest.from_json(data)
        for name in EXTRAS:
            if name not in manifest.files and os.path.lexists(path / name):
                raise ChecksumError(
                    f"{path / name} is not of the bundle, {FILE} does not name it: remove it"
                )
        contents = {name: read(path, name, MAX_BYTES) for name in manifest.files}
        for name, content in contents.items():
            if _sha256(content) != manifest.files[name]["sha256"]:
                raise ChecksumError(
                    f"{path / name} is not the file that {FILE} names (SHA-256): "
                    "get the bundle again"
                )
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    graphs = {name: contents[name] for name in manifest.interfaces if name in contents}
    bundle = Bundle(path, manifest, _sha256(data), graphs)
    for name in () if lazy else graphs:
        bundle.graph(name)
    return bundle


def read(folder: Path, name: str, cap: int) -> bytes:
    """Return a regular file's bytes, read once and without following a link.

    Raises:
        ModelError: it is missing, is something else, can't be read, or has more than `cap` bytes.
    """
    try:
        if (folder / name).is_symlink():
            raise ModelError(f"{name} is a symbolic link: a bundle holds its files itself")
        with open(folder / name, "rb", opener=lambda p, flags: os.open(p, flags | CAREFUL)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelError(f"{name} is not a regular file")
            data = file.read(cap + 1)
    except FileNotFoundError:
        raise ModelError(f"{name} is missing: not a complete bundle") from None
    except OSError as error:
        raise ModelError(f"{name} can't be read: {error.strerror}") from None
    if len(data) > cap:
        raise ModelError(f"{name} is larger than {cap} bytes")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

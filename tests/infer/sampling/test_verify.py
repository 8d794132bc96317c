"""A bundle passes only if it is whole, computes the stored rows again, and is its maker's where a key is given."""

import hashlib
import json
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from scgan_infer import bundle
from scgan_infer.bundle.manifest import Manifest
from scgan_infer.columns import Column
from scgan_infer.errors import ChecksumError, ModelError, ParityError, UsageError
from scgan_infer.sampling.verify import TOLERANCE, differences, verify

SHIPPED = Path(__file__).parents[3] / "exported" / "eight_gaussians"


@pytest.fixture
def shipped(tmp_path):
    return Path(shutil.copytree(SHIPPED, tmp_path / "b"))


def resaved(path, graphs=None, **changes):
    """Give a bundle another manifest or other graphs, so that every checksum fits."""
    manifest = {**json.loads((path / "bundle.json").read_bytes()), **changes}
    for name, data in (graphs or {}).items():
        (path / name).write_bytes(data)
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "bundle.json").write_text(json.dumps(manifest))
    return path


def test_the_bundle_that_ships_is_good():
    verdict = verify(SHIPPED)
    assert verdict.vectors == 8
    assert verdict.worst < 1e-4
    assert not verdict.signed


@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("shift", [0.001, 1.0, 1e30])
def test_other_rows_than_those_stored_fail(shipped, row, shift):
    parity = json.loads(json.dumps(bundle.load(shipped).manifest.parity))
    parity["x"][row][1] += shift
    with pytest.raises(ParityError, match=r"where .* is due"):
        verify(resaved(shipped, parity=parity))


@pytest.mark.parametrize("key", ["seed", "index"])
def test_rows_of_another_seed_or_index_fail(shipped, key):
    parity = dict(bundle.load(shipped).manifest.parity)
    parity[key] = parity[key] + 1 if key == "seed" else [i + 1 for i in parity[key]]
    with pytest.raises(ParityError):
        verify(resaved(shipped, parity=parity))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": None},
        {"seed": -1},
        {"seed": True},
        {"index": [0]},
        {"index": [2**63] + [0] * 7},
        {"x": "rows"},
        {"x": [[0.0]] * 8},
        {"x": [[0.0, "1"]] * 8},
        {"x": [[1e300, 0.0]] * 8},
        {"index": list(range(65)), "x": [[0.0, 0.0]] * 65},
        {"index": list(range(0, 9 * 4096, 4096)), "x": [[0.0, 0.0]] * 9},
    ],
)
def test_vectors_that_are_none_are_malformed(shipped, change):
    parity = {**bundle.load(shipped).manifest.parity, **change}
    with pytest.raises(ModelError, match="parity"):
        verify(resaved(shipped, parity=parity))


def test_thresholds_that_the_graph_does_not_follow_fail(shipped):
    thresholds = bundle.load(shipped).manifest.thresholds
    moved = (thresholds[0] - 40_000, *thresholds[1:])
    with pytest.raises(ParityError, match="cluster"):
        verify(resaved(shipped, thresholds=moved))


def test_graphs_of_two_models_do_not_pass_for_one(tiny_bundle):
    """The generator is not what the mappers and the decoder compose to."""
    nodes = [*tiny.MAP, *tiny.DECODE[:-1], tiny.node("Sub", "latent h6", "x")]
    other = tiny.model(tiny.body("generator.onnx", nodes=nodes))
    with pytest.raises(ParityError, match="then decoder"):
        verify(resaved(tiny_bundle, graphs={"generator.onnx": other}))


def test_a_bundle_without_vectors_is_said_to_have_none(tiny_bundle):
    assert verify(tiny_bundle).vectors == 0


def test_a_checksum_that_does_not_fit(shipped):
    with (shipped / "card.md").open("ab") as file:
        file.write(b"!")
    with pytest.raises(ChecksumError, match=r"card\.md"):
        verify(shipped)


def pem(tmp_path, name="key"):
    """Make a pair of keys with `cryptography`; return the files of the private and the public one."""
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    from cryptography.hazmat.primitives import serialization as s

    key = ed25519.Ed25519PrivateKey.generate()
    private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_a_signature_is_of_one_key_and_one_bundle(shipped, tmp_path):
    private, public = pem(tmp_path)
    _, strange = pem(tmp_path, "strange")
    from scgan_infer.bundle import signing

    with pytest.raises(ChecksumError, match="not signed"):
        verify(shipped, public)
    signing.sign(shipped, signing.load_key(private, "private"))
    assert verify(shipped, public).signed
    assert bundle.load(shipped).manifest.name == "eight_gaussians"
    with pytest.raises(ChecksumError, match="not this key's"):
        verify(shipped, strange)
    for name in bundle.EXTRAS:
        kept = (shipped / name).read_bytes()
        (shipped / name).write_bytes(kept + b"!")
        with pytest.raises(ChecksumError, match=name):
            verify(shipped, public)
        (shipped / name).write_bytes(kept)
    data = (shipped / "bundle.json").read_bytes()
    (shipped / "bundle.json").write_bytes(data.replace(b'"name": "eight', b'"name": "Eight'))
    with pytest.raises(ChecksumError, match="not this key's"):
        verify(shipped, public)


@pytest.mark.parametrize("bad", [b"", b"\0" * 64, b"x" * 63, b"\xff" * 64])
def test_bytes_that_are_no_signature(shipped, tmp_path, bad):
    _, public = pem(tmp_path)
    (shipped / "bundle.sig").write_bytes(bad)
    with pytest.raises(ChecksumError, match="not this key's"):
        verify(shipped, public)


def test_keys_that_are_none(shipped, tmp_path):
    private, public = pem(tmp_path)
    from scgan_infer.bundle import signing

    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    for key in (junk, private, tmp_path / "nowhere.pem", tmp_path):
        with pytest.raises(UsageError, match="key"):
            verify(shipped, key)
    for key in (junk, public, tmp_path / "nowhere.pem"):
        with pytest.raises(UsageError, match="key"):
            signing.load_key(key, "private")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import x25519

    other = x25519.X25519PrivateKey.generate().public_key()
    junk.write_bytes(other.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(UsageError, match="Ed25519"):
        verify(shipped, junk)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_openssl_agrees(shipped, tmp_path):
    """The commands of `signing`'s docstring: keys of openssl's serve, and it accepts the signature."""
    pytest.importorskip("cryptography")
    from scgan_infer.bundle import signing

    def openssl(*arguments):
        return subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)

    private, public = tmp_path / "k.pem", tmp_path / "p.pem"
    assert openssl("genpkey", "-algorithm", "ed25519", "-out", private).returncode == 0
    assert openssl("pkey", "-in", private, "-pubout", "-out", public).returncode == 0
    signature = signing.sign(shipped, signing.load_key(private, "private"))
    assert verify(shipped, public).signed
    check = ("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in")
    assert openssl(*check, shipped / "bundle.json", "-sigfile", signature).returncode == 0
    assert openssl(*check, shipped / "card.md", "-sigfile", signature).returncode == 1


def test_the_manifest_comes_back_as_it_was(tiny_path):
    data = (tiny_path / "bundle.json").read_bytes()
    assert Manifest.from_json(data).to_json() == data


@pytest.mark.parametrize(
    ("column", "spread", "most"),
    [
        (Column("n", "integer"), 10, 4),
        (Column("k", "category", categories=("a", "b")), 1, 4),
        (Column("x", decimals=1), 4, 4),
        (Column("n", "integer"), 1000, 82),
        (Column("x", decimals=2), 10, 82),
    ],
)
def test_so_many_rounded_values_may_be_one_step_apart(column, spread, most):
    a = np.zeros(4096)
    for flips, steps, agrees in ((most, 1, True), (most + 1, 1, False), (1, 2, False)):
        b = a.copy()
        b[:flips] += steps * column.step
        found = differences(a[:, None], b[:, None], (column,), [spread])
        assert (found.max() <= TOLERANCE) == agrees


def test_values_large_beside_their_spread_are_held_to_the_spread():
    """float32 has steps of 1/128 at 1e5: some of them are rounding, and a constant is another column."""
    rows = (1e5 + np.random.default_rng(0).standard_normal((4096, 1))).astype(np.float32)
    for other, agrees in (
        (rows + 3 / 128, True),
        (rows + 20 / 128, False),
        (rows * 0 + 1e5, False),
    ):
        found = differences(rows, other, (Column("x"),), rows.std(0))
        assert (found.max() <= TOLERANCE) == agrees


def test_heads_and_densities_are_run(tiny_bundle):
    density = tiny.model(tiny.density("log_density"))
    other = tiny.graph(
        [tiny.node("Cast", "u", "choice", to=7)],
        [],
        [("u", "float32", ["n"])],
        [("choice", "int64", ["n"])],
    )
    for head, words in ((tiny.head(), None), (other, "head.onnx draws cluster 0")):
        graphs = {**tiny.GRAPHS, "head.onnx": tiny.model(head), "density.onnx": density}
        tiny.save(tiny_bundle, tiny.MANIFEST, graphs)
        with pytest.raises(ParityError, match=words) if words else nullcontext():
            verify(tiny_bundle)


def test_a_bundle_of_whole_numbers_without_stored_rows(tmp_path):
    columns = (Column("x", "integer"), Column("y"))
    path = tiny.save(tmp_path / "b", replace(tiny.MANIFEST, columns=columns), tiny.GRAPHS)
    assert verify(path).vectors == 0

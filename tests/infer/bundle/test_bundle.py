"""Save and load are inverse; whatever is not exactly a bundle is refused, with one line that says why."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_bytes import TYPES, attribute, field, graph, message, model, node, tensor, value

from scgan_infer import bundle
from scgan_infer.bundle.interfaces import interfaces
from scgan_infer.bundle.manifest import Manifest
from scgan_infer.bundle.rules import MAX_BYTES, check
from scgan_infer.columns import Column
from scgan_infer.errors import ChecksumError, DataError, ModelError, UsageError


def test_load_is_the_inverse_of_save(tiny_path):
    loaded = bundle.load(tiny_path)
    assert loaded.graphs == tiny.GRAPHS
    assert replace(loaded.manifest, files={}) == tiny.MANIFEST
    assert set(loaded.manifest.files) == {*tiny.GRAPHS, *tiny.EXTRAS}


def test_equal_content_gives_equal_bytes(tmp_path):
    ends = []
    for name in ("a", "b"):
        shuffled = dict(reversed(tiny.GRAPHS.items())) if name == "b" else tiny.GRAPHS
        tiny.save(tmp_path / name, tiny.MANIFEST, shuffled)
        ends.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert ends[0] == ends[1]
    assert ends[0]["bundle.json"].startswith(b'{\n "format": 2,')


def test_every_kind_of_column_survives(tmp_path):
    columns = (
        Column("phi", "periodic", "rad", period=6.25, low=-3.125),
        Column("species", "category", categories=("Adélie", "Gentoo")),
    )
    path = tiny.save(tmp_path / "b", replace(tiny.MANIFEST, columns=columns), tiny.GRAPHS)
    assert bundle.load(path).manifest.columns == columns


def test_save_replaces_a_bundle_and_nothing_else(tmp_path):
    path = tmp_path / "b"
    tiny.save(path)
    tiny.save(path, replace(tiny.MANIFEST, name="second"), tiny.GRAPHS)
    assert bundle.load(path).manifest.name == "second"
    assert [item.name for item in tmp_path.iterdir()] == ["b"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not a bundle"):
        tiny.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter1.tex").exists()


def _dying(function, deadly):
    calls = iter(range(100))

    def dying(*arguments, **options):
        if next(calls) == deadly:
            os._exit(9)
        return function(*arguments, **options)

    return dying


@pytest.mark.parametrize("step", ["rename", "mkdir", "fsync"])
def test_a_save_that_dies_leaves_a_whole_bundle_or_none(tmp_path, step):
    """Run save in a process that is killed at each of its system calls in turn."""
    path = tmp_path / "b"
    tiny.save(path)
    for deadly in range(9):
        pid = os.fork()
        if pid == 0:
            setattr(os, step, _dying(getattr(os, step), deadly))
            tiny.save(path, replace(tiny.MANIFEST, name="second"), tiny.GRAPHS)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if path.exists():
            assert bundle.load(path).manifest.name in ("tiny", "second")
        else:
            assert os.waitstatus_to_exitcode(status) == 9
            with pytest.raises(ModelError, match="no bundle"):
                bundle.load(path)
    tiny.save(path)
    assert [item.name for item in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_cant_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't write"):
        tiny.save(tmp_path / "file" / "b")


def test_a_flipped_bit_anywhere_is_noticed(tiny_bundle):
    for name in (*tiny.GRAPHS, "card.md"):
        path = tiny_bundle / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(ChecksumError, match=name) as error:
            bundle.load(tiny_bundle)
        assert error.value.exit_code == 6
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    bundle.load(tiny_bundle)


@pytest.mark.parametrize("name", tiny.EXTRAS)
def test_every_bundle_has_a_card_and_a_picture_and_its_manifest_names_them(tiny_bundle, name):
    others = {key: data for key, data in tiny.EXTRAS.items() if key != name}
    with pytest.raises(ModelError, match=f"a bundle has a {name}"):
        bundle.save(tiny_bundle, tiny.MANIFEST, tiny.GRAPHS, others)
    assert name in bundle.load(tiny_bundle).manifest.files
    (tiny_bundle / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        bundle.load(tiny_bundle)


@pytest.mark.parametrize("name", tiny.EXTRAS)
def test_a_card_or_picture_that_the_manifest_does_not_name_is_refused(tiny_bundle, name):
    """A bundle of another writer may lack them; then there are none, and a signature covers all that there is."""
    manifest = json.loads((tiny_bundle / "bundle.json").read_bytes())
    del manifest["files"][name]
    (tiny_bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(ChecksumError, match=f"{name} is not of the bundle"):
        bundle.load(tiny_bundle)
    (tiny_bundle / name).unlink()
    bundle.load(tiny_bundle)
    (tiny_bundle / name).symlink_to("nowhere")
    with pytest.raises(ChecksumError, match=f"{name} is not of the bundle"):
        bundle.load(tiny_bundle)


def test_missing_files_links_pipes_and_giants_are_refused(tiny_bundle):
    path = tiny_bundle / "decoder.onnx"
    data = path.read_bytes()
    for case, words in (
        ("gone", "missing"),
        ("link", "symbolic link"),
        ("pipe", "regular"),
        ("giant", "larger"),
    ):
        path.unlink(missing_ok=True)
        if case == "link":
            (tiny_bundle.parent / "elsewhere").write_bytes(data)
            path.symlink_to(tiny_bundle.parent / "elsewhere")
        elif case == "pipe":
            os.mkfifo(path)
        elif case == "giant":
            with path.open("wb") as file:
                file.truncate(MAX_BYTES + 1)
        with pytest.raises(ModelError, match=words):
            bundle.load(tiny_bundle)


def test_what_is_not_a_bundle_is_a_model_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("nothing", "file", "empty"):
        with pytest.raises(ModelError):
            bundle.load(tmp_path / name)


def _changed(**changes):
    found = json.loads(replace(tiny.MANIFEST, files=_FILES).to_json())
    for keys, new in changes.items():
        *way, last = keys.split("__")
        holder = found
        for key in way:
            holder = holder[int(key) if key.isdigit() else key]
        holder[last] = new
    return json.dumps(found).encode()


_FILES = {name: {"bytes": 1, "sha256": "0" * 64} for name in tiny.GRAPHS}
HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (_changed().decode().encode("utf-16"), "not JSON"),
        (_changed().decode().encode("utf-16-le"), "not JSON"),
        (_changed().decode().encode("utf-32"), "not JSON"),
        (_changed().decode().encode("utf-8-sig"), "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"format": 1, "format": 1}', "twice"),
        (b'{"format": 1, "name": NaN}', "finite"),
        (b'{"format": 1, "name": 1e999}', "finite"),
        (b"[]", "no format"),
        (b'{"name": "x"}', "no format"),
        (b'{"format": true}', "no format"),
        (_changed(format="1"), "no format"),
        (_changed(format=0), "no format"),
        (_changed(name=""), "name can't be"),
        (_changed(name="\x1b[2J"), "name can't be"),
        (_changed(name="a" * 10_000), "name can't be"),
        (_changed(sizes=[1]), "sizes can't be"),
        (_changed(sizes__d=0), "sizes can't be"),
        (_changed(sizes__K=2**40), "sizes can't be"),
        (_changed(sizes__q=True), "sizes can't be"),
        (_changed(columns=[{"name": "x", "kind": "real"}]), "columns is not"),
        (_changed(columns=None), "columns can't be"),
        (_changed(columns=["x", "y"]), "columns is not"),
        (_changed(columns__1__name="x"), "same name"),
        (_changed(columns__1__name=["y"]), r"columns\[1\]\.name"),
        (_changed(columns__1__name="\ud800"), r"columns\[1\]\.name"),
        (_changed(columns__0__kind="complex"), "unknown kind"),
        (_changed(columns__0__kind=["real"]), r"columns\[0\]\.kind"),
        (_changed(columns__0__kind="periodic"), "needs its period"),
        (_changed(columns__0__low="0"), r"columns\[0\]\.low"),
        (_changed(columns__0__low=HUGE), r"columns\[0\]\.low"),
        (_changed(columns__0__kind="bounded", columns__0__low=2, columns__0__high=1), "not below"),
        (_changed(columns__0__kind="category"), "names of its categories"),
        (_changed(columns__0__kind="category", columns__0__categories=["a", "a"]), "same name"),
        (
            _changed(columns__0__kind="category", columns__0__categories=[["a"]]),
            r"columns\[0\]\.categories",
        ),
        (_changed(latents="magic"), "latents can't be"),
        (_changed(mapper=None), "mapper can't be"),
        (_changed(opset=17), "opset can't be"),
        (_changed(thresholds=[2**24]), "thresholds is not"),
        (_changed(thresholds=[0, 0, 0, 2**24 - 1]), "thresholds can't be"),
        (_changed(thresholds=[9, 8, 9, 2**24]), "thresholds can't be"),
        (_changed(thresholds=[0.5, 1, 2, 2**24]), "thresholds can't be"),
        (_changed(files={}), "does not name encoder.onnx"),
        (_changed(files=[]), "names no files"),
        (
            _changed(files={**_FILES, "../../etc/passwd": _FILES["encoder.onnx"]}),
            "not a file of a bundle",
        ),
        (_changed(files={**_FILES, "model.pkl": _FILES["encoder.onnx"]}), "not a file of a bundle"),
        (
            _changed(files={**_FILES, "card.md": {"bytes": -1, "sha256": "0" * 64}}),
            "card.md can't be",
        ),
        (
            _changed(files={**_FILES, "card.md": {"bytes": 1, "sha256": "0" * 63}}),
            "card.md can't be",
        ),
        (_changed(parity=[]), "parity can't be"),
    ],
)
def test_manifests_off_the_schema_are_refused(data, words):
    with pytest.raises(ModelError, match=words) as error:
        Manifest.from_json(data)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


def test_sizes_that_a_format_lacks_are_not_read():
    sizes = {**tiny.SIZES, "h": "many", "g": 2}
    assert Manifest.from_json(_changed(format=1, sizes=sizes)).sizes["h"] == 1


def test_a_newer_format_is_refused_before_anything_else():
    with pytest.raises(ModelError, match="install a newer scgan") as error:
        Manifest.from_json(b'{"format": 3, "everything": "is different now"}')
    assert error.value.exit_code == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "given is not a list of g = 1 columns"),
        ([{"column": {"name": "e"}, "place": 0}], "given\\[0\\].kind is missing"),
        ([{"column": {"name": "x", "kind": "real"}, "place": 0}], "have the same name"),
        ([{"column": {"name": "e", "kind": "real"}, "place": 3}], "place can't be 3"),
        ([{"column": {"name": "e", "kind": "real"}}], "place is missing"),
        ([{"column": {"name": "e", "kind": "real"}, "place": 2, "low": "a"}], "low can't be 'a'"),
    ],
)
def test_given_columns_off_the_schema_are_refused(given, words):
    head = {**tiny.MANIFEST.fields()["files"], "head.onnx": {"bytes": 1, "sha256": "0" * 64}}
    head |= {name: head["head.onnx"] for name in tiny.GRAPHS}
    with pytest.raises(ModelError, match=words):
        Manifest.from_json(_changed(sizes={**tiny.SIZES, "g": 1}, given=given, files=head))


def test_sizes_say_which_tensors_a_graph_has():
    def names(version, name, **sizes):
        takes, gives = interfaces(version, {**tiny.SIZES, **sizes})[name]
        return " ".join(takes), " ".join(gives)

    assert names(1, "encoder.onnx") == ("x", "latent cluster")
    assert names(2, "encoder.onnx") == ("x", "latent choice")
    assert names(2, "generator.onnx") == ("u w z", "x")
    assert names(2, "decoder.onnx") == ("latent z", "x")
    assert names(2, "decoder.onnx", q=0) == ("latent", "x")
    assert names(2, "decoder.onnx", q=0, h=2, g=3) == ("latent choice", "x")
    assert names(2, "mappers.onnx", h=2, g=3) == ("u w c", "latent choice")
    assert names(2, "mappers.onnx", h=2, e=0, m=0) == ("u", "choice")
    assert interfaces(2, tiny.SIZES)["mappers.onnx"][0]["u"][1] == (0,)
    assert interfaces(2, {**tiny.SIZES, "h": 3})["mappers.onnx"][0]["u"][1] == (0, 3)
    assert {*interfaces(2, tiny.SIZES)} - {*interfaces(1, tiny.SIZES)} == {
        "head.onnx",
        "density.onnx",
    }


def test_head_and_density_are_optional_graphs_of_format_2(tmp_path):
    head = tiny.model(tiny.head())
    path = tiny.save(tmp_path / "b", tiny.MANIFEST, {**tiny.GRAPHS, "head.onnx": head})
    assert bundle.load(path).graphs["head.onnx"] == head
    with pytest.raises(
        ModelError, match=r"^density\.onnx: outputs 'choice' instead of log_density"
    ):
        tiny.save(
            path, tiny.MANIFEST, {**tiny.GRAPHS, "density.onnx": tiny.model(tiny.density("choice"))}
        )
    density = tiny.model(tiny.density("log_density"))
    tiny.save(path, tiny.MANIFEST, {**tiny.GRAPHS, "density.onnx": density})
    data = (path / "bundle.json").read_bytes().replace(b'"format": 2', b'"format": 1')
    with pytest.raises(ModelError, match=r"'density.onnx' is not a file of a bundle"):
        Manifest.from_json(data)


def test_keys_of_later_minor_versions_are_skipped():
    data = _changed(future={"a": 1}, columns__0__colour="red", sizes__t=3, files__future=None)
    with pytest.raises(ModelError, match="'future' is not a file"):
        Manifest.from_json(data)
    assert (
        Manifest.from_json(_changed(future={"a": 1}, columns__0__colour="red")).columns
        == tiny.MANIFEST.columns
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.data())
def test_any_json_in_any_place_is_read_or_refused(data):
    found = json.loads(_changed())
    holder, way = found, []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        way.append(key)
        if not isinstance(holder[key], dict | list) or not holder[key] or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = data.draw(json_values)
    with suppress(ModelError):
        Manifest.from_json(json.dumps(found).encode())


def decoder(nodes=tiny.DECODE, weights=None, **changes):
    """Return the bytes of a decoder with something changed."""
    outer = {key: changes.pop(key) for key in ("ir", "opsets", "more") if key in changes}
    used = [item for item in tiny.WEIGHTS if item[0] in ("a1", "a2", "b", "a3")]
    weights = used if weights is None else [*used, *weights]
    return model(tiny.body("decoder.onnx", nodes=nodes, weights=weights, **changes), **outer)


DECODER = tiny.MANIFEST.interfaces["decoder.onnx"]


def after(*nodes):
    """Return the decoder's nodes with its last value renamed to y, and these behind."""
    return [*tiny.DECODE[:-1], node("Add", "latent h6", "y"), *nodes]


def instead(side, place, new):
    """Return the decoder's inputs or outputs with one replaced."""
    ends = list(tiny.ends("decoder.onnx")[side == "outputs"])
    ends[place : place + max(1, len(new))] = new
    return {side: ends}


SUBGRAPH = message((1, "then_branch"), (6, graph([], [], [], [])), (20, 5))
EXTERNAL = tensor(
    "far", np.zeros(0, np.float32), (13, message((1, "location"), (2, "/etc/passwd"))), (14, 1)
)
TRACE = message((1, "pkg.torch.onnx.stack_trace"), (2, "/home/me/train.py:7"))
TWO = np.array(2, np.int64)

REFUSED = {
    "control flow": {
        "control flow": decoder(after(node("If", "y", "x", more=[(5, SUBGRAPH)]))),
        "control flow in a known operator": decoder(
            after(node("Identity", "y", "x", more=[(5, SUBGRAPH)]))
        ),
        "loop": decoder(after(node("Loop", "y", "x"))),
    },
    "random operator": {
        "random": decoder(after(node("RandomNormalLike", "y", "r"), node("Add", "y r", "x"))),
        "dropout": decoder(after(node("Dropout", "y", "x"))),
    },
    "custom domain": {
        "custom domain of a node": decoder(after(node("Identity", "y", "x", domain="com.evil"))),
        "custom domain imported": decoder(opsets=(("", 18), ("com.evil", 1))),
        "microsoft's domain": decoder(after(node("FusedGemm", "y", "x", domain="com.microsoft"))),
    },
    "not on the list": {
        "operator off the list": decoder(after(node("NonZero", "y", "x"))),
        "operator that aborts": decoder(after(node("GatherND", "y y", "x"))),
    },
    "functions": {
        "function": decoder(more=[(25, message((1, "f"), (2, "d")))]),
    },
    "sparse": {
        "sparse weights": model(tiny.body("decoder.onnx", more=[(15, b"x")])),
    },
    "external data": {
        "external data": decoder(weights=[EXTERNAL]),
    },
    "holds NaN": {
        "NaN": decoder(weights=[("bad", np.array([0, np.nan], np.float32))]),
        "infinity": decoder(weights=[("bad", np.array([np.inf], np.float64))]),
        "NaN in a constant": decoder(
            [*tiny.DECODE, node("Constant", "", "c", value=np.array([np.nan], np.float32))]
        ),
    },
    "not finite": {
        "NaN in an attribute": decoder(after(node("LeakyRelu", "y", "x", alpha=float("nan")))),
    },
    "other data than": {
        "too little data": decoder(weights=[message((1, 3), (2, 1), (8, "bad"), (9, bytes(8)))]),
        "too much data": decoder(weights=[message((1, 3), (2, 1), (8, "bad"), (9, bytes(16)))]),
        "no data": decoder(weights=[message((1, 3), (2, 1), (8, "bad"))]),
        "data of two kinds": decoder(
            weights=[message((1, 1), (2, 1), (8, "bad"), (9, bytes(4)), (4, bytes(4)))]
        ),
        "data of another type": decoder(
            weights=[message((1, 1), (2, 1), (8, "bad"), (10, bytes(8)))]
        ),
    },
    "has dimensions": {
        "negative dimension": decoder(
            weights=[message((1, -1), (1, -1), (2, 1), (8, "bad"), (9, bytes(4)))]
        ),
        "dimensions that overflow": decoder(
            weights=[message((1, 2**62), (1, 4), (2, 1), (8, "bad"))]
        ),
        "giant empty tensor": decoder(weights=[message((1, 0), (1, 2**40), (2, 1), (8, "bad"))]),
        "dimensions whose product a 0 hides": decoder(
            weights=[message(*[(1, 2**24)] * 4, (1, 0), (2, 1), (8, "bad"))]
        ),
        "declared dimensions that overflow": model(
            tiny.body("decoder.onnx", more=[(13, value("h1", "float32", [2**24] * 4 + [0]))])
        ),
        "rank 9": decoder(weights=[message(*[(1, 1)] * 9, (2, 1), (8, "bad"), (9, bytes(4)))]),
        "giant declared dimension": model(
            tiny.body("decoder.onnx", more=[(13, value("h1", "float32", ["n", 2**40]))])
        ),
    },
    "holds .*, which is no": {
        f"{number} as {dtype}": decoder(
            weights=[message((1, 1), (2, TYPES[dtype]), (8, "bad"), (place, number))]
        )
        for dtype, place, numbers in (
            ("int32", 5, (2**32, 2**32 - 1, -(2**31) - 1)),
            ("int8", 5, (256, 128, -129)),
            ("uint8", 5, (256, -1)),
            ("uint32", 11, (2**32, -1)),
            ("bool", 5, (256, -1)),
        )
        for number in numbers
    },
    "has type 10": {
        "half floats": decoder(weights=[message((1, 1), (2, 10), (8, "bad"), (9, bytes(2)))]),
    },
    "truth values": {
        "truth beyond one": decoder(weights=[message((1, 1), (2, 9), (8, "bad"), (9, b"\x07"))]),
    },
    "instead of IR 8, opset 18": {
        "IR 3": decoder(ir=3),
        "IR 99": decoder(ir=99),
        "opset 17": decoder(opsets=(("", 17),)),
        "no opset": decoder(opsets=()),
        "two opsets": decoder(opsets=(("", 18), ("ai.onnx", 17))),
    },
    "inputs '.*' instead of latent, z": {
        "input missing": decoder(**instead("inputs", 1, [])),
        "input renamed": decoder(**instead("inputs", 1, [("noise", "float32", ["n", 5])])),
        "input more": decoder(**instead("inputs", 2, [("extra", "float32", ["n"])])),
        "inputs in another order": decoder(
            **instead("inputs", 0, list(reversed(tiny.ends("decoder.onnx")[0])))
        ),
    },
    r"input z is not float32 \[n, 5\]": {
        "input of another type": decoder(**instead("inputs", 1, [("z", "float64", ["n", 5])])),
        "input of another rank": decoder(**instead("inputs", 1, [("z", "float32", ["n", 5, 1])])),
        "input of another size": decoder(**instead("inputs", 1, [("z", "float32", ["n", 6])])),
        "input of an open size": decoder(**instead("inputs", 1, [("z", "float32", ["n", "q"])])),
        "input of a frozen batch": decoder(**instead("inputs", 1, [("z", "float32", [4, 5])])),
    },
    "outputs '.*' instead of x": {
        "output renamed": decoder(**instead("outputs", 0, [("y", "float32", ["n", 2])])),
        "output more": decoder(**instead("outputs", 1, [("h6", "float32", ["n", 2])])),
    },
    "is not computed": {
        "output never computed": decoder(tiny.DECODE[:-1]),
    },
    "before it is made": {
        "value used before it is made": decoder(list(reversed(tiny.DECODE))),
    },
    "two values": {
        "value made twice": decoder([*tiny.DECODE, tiny.DECODE[-1]]),
        "weight that shadows an input": decoder(weights=[("z", np.zeros((1, 5), np.float32))]),
    },
    "of integers by": {
        "integer division by a computed number": decoder(
            [
                *tiny.DECODE,
                node("Shape", "z", "s"),
                node("Sub", "s s", "nought"),
                node("Div", "s nought", "trap"),
            ]
        ),
        "integer division by minus one": decoder(
            [*tiny.DECODE, node("Shape", "z", "s"), node("Div", "s minus", "trap")],
            [("minus", np.array(-1, np.int64))],
        ),
        **{
            f"integer {operator} by {number} as {dtype}": decoder(
                [
                    *tiny.DECODE,
                    node("Cast", "z", "s", to=TYPES[dtype]),
                    node(operator, "s by", "r"),
                ],
                [message((2, TYPES[dtype]), (8, "by"), (place, number))],
            )
            for operator in ("Div", "Mod")
            for dtype, place, number in (
                ("int32", 5, 0),
                ("int32", 5, -1),
                ("int64", 7, -1),
                ("uint64", 11, 0),
            )
        },
        "integer remainder of a cast": decoder(
            [
                *tiny.DECODE,
                node("Cast", "z", "s", to=7),
                node("Constant", "", "c", value_int=0),
                node("Mod", "s c", "trap"),
            ]
        ),
    },
    "Cast to type": {
        "cast to strings": decoder([*tiny.DECODE, node("Cast", "z", "s", to=8)]),
        "cast to nothing": decoder([*tiny.DECODE, node("Cast", "z", "s")]),
    },
    "repeated or of a wrong type": {
        "cast to a tensor": decoder(
            [*tiny.DECODE, node("Cast", "z", "s", to=np.zeros(1, np.float32))]
        ),
        "attribute twice": decoder(
            [*tiny.DECODE, node("Cast", "z", "s", to=1, more=[(5, attribute("to", 7))])],
        ),
        "attribute of an unknown type": decoder(
            [*tiny.DECODE, node("Softmax", "z", "s", more=[(5, message((1, "axis"), (20, 13)))])]
        ),
    },
    "more than 67108864": {
        "product of 11,000 x 11,000": decoder(
            after(
                node("Expand", "one wide", "rows"),
                node("Expand", "one square", "matrix"),
                node("MatMul", "y rows", "long"),
                node("MatMul", "long matrix", "longer"),
                node("ReduceMax", "longer", "most"),
                node("Add", "y most", "x"),
            ),
            [
                ("one", np.ones((), np.float32)),
                ("wide", np.array([2, 11_000])),
                ("square", np.array([11_000, 11_000])),
            ],
        ),
        "many products": decoder(
            [
                *tiny.DECODE,
                node("Expand", "one square", "m0"),
                *[node("MatMul", f"m{i} m{i}", f"m{i + 1}") for i in range(40)],
            ],
            [("one", np.ones((), np.float32)), ("square", np.array([2000, 2000]))],
        ),
    },
    "more than 4194304": {
        "giant of ones": decoder(
            [*tiny.DECODE, node("Expand", "one giant", "ones")],
            [("one", np.array(1)), ("giant", np.array([2**24, 2**8]))],
        ),
    },
    "would decide on shapes": {
        f"{operator} by data": decoder(
            [
                *tiny.DECODE,
                node("Cast", "z", "s", to=7),
                node("ReduceMax", "s", "size", keepdims=0),
                node(operator, inputs, "r"),
            ]
        )
        for operator, inputs in (
            ("ConstantOfShape", "size"),
            ("Expand", "z size"),
            ("Reshape", "z size"),
            ("Slice", "z size size"),
            ("Unsqueeze", "z size"),
        )
    },
    "can't be computed": {
        "sizes that do not fit": decoder([*tiny.DECODE, node("Add", "z latent", "s")]),
        "lengths that do not fit": decoder([*tiny.DECODE, node("MatMul", "z latent", "s")]),
        "axis that there is not": decoder([*tiny.DECODE, node("ArgMax", "z", "s", axis=2)]),
        "gather of nothing": decoder([*tiny.DECODE, node("Gather", "z", "s")]),
    },
    "without elements": {
        "empty slice": decoder(
            [*tiny.DECODE, node("Slice", "z two two", "s")], [("two", np.array([2]))]
        ),
    },
    "Mod of numbers": {
        "remainder of real numbers": decoder([*tiny.DECODE, node("Mod", "z z", "s", fmod=1)]),
    },
    "with keepdims = 2": {
        "flag that is none": decoder([*tiny.DECODE, node("ReduceMax", "z", "s", keepdims=2)]),
    },
    "not a constant list": {
        "reduction along computed axes": decoder(
            [*tiny.DECODE, node("Shape", "z", "s"), node("ReduceSum", "z s", "r")]
        ),
        "reduction along no list": decoder(
            [*tiny.DECODE, node("ReduceSum", "z two", "r")], [("two", TWO)]
        ),
    },
    "not a constant number": {
        "sum along a computed axis": decoder(
            [*tiny.DECODE, node("Shape", "z", "s"), node("CumSum", "z s", "r")]
        )
    },
    "has 2 outputs": {
        "split with outputs to spare": decoder(
            [*tiny.DECODE, node("Split", "z", "s1 s2", num_outputs=1)]
        ),
    },
    "along axis": {
        "axis far outside": decoder(
            [*tiny.DECODE, node("Gather", "z two", "s", axis=-(2**63))], [("two", TWO)]
        ),
    },
    "Constant": {
        "constant of nothing": decoder([*tiny.DECODE, node("Constant", "", "c")]),
        "constant of two things": decoder(
            [*tiny.DECODE, node("Constant", "", "c", value_int=1, value_float=1.0)]
        ),
        "constant of text": decoder([*tiny.DECODE, node("Constant", "", "c", value_string="text")]),
    },
    "too few inputs": {
        "operator without input": decoder([*tiny.DECODE, node("Tanh", "", "s")]),
    },
    "strip it at export": {
        "stack trace at a node": decoder(after(node("Identity", "y", "x", more=[(9, TRACE)]))),
        "doc_string at a node": decoder(
            after(node("Identity", "y", "x", more=[(6, "File /home/me/train.py")]))
        ),
    },
    "metadata": {
        "stack trace at the model": decoder(more=[(14, TRACE)]),
        "session options inside": decoder(more=[(14, message((1, "ort_config"), (2, "{}")))]),
    },
    "10008 nodes": {
        "too many nodes": decoder(
            [*tiny.DECODE, *[node("Tanh", "z", f"t{i}") for i in range(10_001)]]
        ),
    },
    "too many fields": {
        "too many fields": decoder(
            weights=[message((1, 600_000), (2, 7), (8, "bad"), (7, bytes(600_000)))]
        ),
    },
    "two fields graph": {
        "two graphs": decoder(more=[(7, tiny.body("decoder.onnx"))]),
    },
    "not an ONNX model": {
        "no graph": message((1, 8)),
        "nothing": b"",
    },
    "field .* is not allowed": {
        "field off the list": decoder(more=[(99, 1)]),
        "training graph": decoder(more=[(20, b"")]),
        "strings": decoder(weights=[message((1, 1), (2, 8), (8, "bad"), (6, b"text"))]),
        "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    },
    "not UTF-8": {
        "not UTF-8": decoder([node("Tanh", "z", "s", more=[(3, b"\xff")])]),
    },
    "wire type": {
        "wrong wire type": message((1, "8")),
        "group": b"\x0b\x0c",
        "text": b"<html>404</html>",
    },
    "64 bits": {
        "endless number": b"\x08" + b"\xff" * 20,
        "number of 70 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    },
    "cut short": {
        "length beyond the end": b"\x3a\xff\xff\xff\xff\x07",
        "negative length": b"\x3a" + field(1, -1)[1:],
    },
    "bytes, more than": {
        "giant": bytes(MAX_BYTES + 1),
    },
}


@pytest.mark.parametrize(
    ("rule", "case"), [(rule, case) for rule, cases in REFUSED.items() for case in cases]
)
def test_graphs_that_break_a_rule_are_refused(rule, case):
    with pytest.raises(ModelError, match=rf"^decoder\.onnx: .*{rule}") as error:
        check("decoder.onnx", REFUSED[rule][case], DECODER)
    assert "\n" not in str(error.value)


def test_the_refused_graphs_differ_from_good_ones_in_that_only():
    """What the cases above are made from passes."""
    check("decoder.onnx", decoder(), DECODER)
    check("decoder.onnx", decoder(after(node("Identity", "y", "x"))), DECODER)
    shape = [*tiny.DECODE, node("Shape", "z", "s"), node("Div", "s two", "half")]
    check("decoder.onnx", decoder(shape, [("two", TWO)]), DECODER)
    check(
        "decoder.onnx",
        decoder([*tiny.DECODE, node("Split", "z", "s1 s2", num_outputs=2)]),
        DECODER,
    )
    wide = [node("Concat", "z " * 200, f"wide{i}", axis=1) for i in range(100)]
    check("decoder.onnx", decoder([*tiny.DECODE, *wide]), DECODER)
    packed = message((1, 3), (2, 7), (8, "packed"), (7, b"\x01\x02\x03"))
    loose = message((1, 2), (2, 7), (8, "loose"), (7, 1), (7, -1))
    check("decoder.onnx", decoder(weights=[packed, loose]), DECODER)
    ends = [
        message((1, 1), (2, TYPES[dtype]), (8, f"{dtype} {number}"), (place, number))
        for dtype, place, numbers in (
            ("int32", 5, (-(2**31), 2**31 - 1)),
            ("int8", 5, (-128, 127)),
            ("uint8", 5, (0, 255)),
            ("uint32", 11, (0, 2**32 - 1)),
            ("uint64", 11, (0, 2**64 - 1)),
        )
        for number in numbers
    ]
    check("decoder.onnx", decoder(weights=ends), DECODER)


def test_load_applies_the_rules_even_where_the_checksum_fits(tiny_bundle):
    data = REFUSED["external data"]["external data"]
    (tiny_bundle / "decoder.onnx").write_bytes(data)
    manifest = json.loads((tiny_bundle / "bundle.json").read_bytes())
    manifest["files"]["decoder.onnx"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (tiny_bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="external data"):
        bundle.load(tiny_bundle)
    with pytest.raises(ModelError, match="external data"):
        tiny.save(tiny_bundle, tiny.MANIFEST, {**tiny.GRAPHS, "decoder.onnx": data})


@settings(max_examples=400)
@given(st.data())
def test_any_bytes_are_a_graph_or_a_model_error(data):
    good = bytearray(tiny.GRAPHS["generator.onnx"])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(good) - 1))
        action = data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"]))
        if action == "flip":
            good[place] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del good[place : place + data.draw(st.integers(1, 40))]
        elif action == "insert":
            good[place:place] = data.draw(st.binary(max_size=12))
        else:
            good[place:place] = good[place : place + 60]
        if not good:
            break
    with suppress(ModelError):
        check("generator.onnx", bytes(good), tiny.MANIFEST.interfaces["generator.onnx"])


def test_onnx_agrees_that_the_tiny_graphs_are_valid():
    onnx = pytest.importorskip("onnx")
    for data in tiny.GRAPHS.values():
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)


def test_the_reader_sees_what_onnx_sees():
    """A model that onnx itself wrote, with typed and raw data, attributes of all kinds and value_info."""
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    from scgan_infer.bundle.onnx_schema import MODEL
    from scgan_infer.bundle.protobuf import Reader

    weights = [
        helper.make_tensor("f", TensorProto.FLOAT, [2], [1.5, -2.5]),
        helper.make_tensor("i", TensorProto.INT64, [2], [-1, 2**40]),
        helper.make_tensor("u", TensorProto.UINT64, [1], [2**63 + 1]),
        helper.make_tensor("d", TensorProto.DOUBLE, [1], [0.1]),
    ]
    nodes = [helper.make_node("Transpose", ["x"], ["y"], name="t", perm=[1, 0])]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, "n"])],
        weights,
    )
    data = helper.make_model(
        made, ir_version=8, opset_imports=[helper.make_opsetid("", 18)]
    ).SerializeToString()
    found = Reader(10_000).read(data, MODEL)
    tensors = {item["name"]: item for item in found["graph"]["initializer"]}
    assert np.frombuffer(tensors["f"]["float_data"], "<f4").tolist() == [1.5, -2.5]
    assert tensors["i"]["int64_data"] == [-1, 2**40]
    assert tensors["u"]["uint64_data"] == [2**63 + 1 - 2**64]
    assert np.frombuffer(tensors["d"]["double_data"], "<f8").tolist() == [0.1]
    assert found["graph"]["node"][0]["attribute"][0]["ints"] == [1, 0]
    assert [
        d["dim_param"] for d in found["graph"]["input"][0]["type"]["tensor_type"]["shape"]["dim"]
    ] == [
        "n",
        "",
    ]

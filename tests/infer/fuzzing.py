"""Damage, by number: case n is a function of n alone, so a failure is reproduced with `python fuzzing.py n`."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import tiny
from onnx_bytes import attribute, node
from suffixes import READY
from test_bundle import REFUSED
from test_formats_bad import cells

from scgan_infer import bundle
from scgan_infer.bundle.rules import MAX_BYTES, OPERATORS
from scgan_train import app as cli

GIBIBYTES = 8
CRAFTED = [data for cases in REFUSED.values() for data in cases.values() if len(data) <= MAX_BYTES]
COMMANDS = (["verify"], ["sample", "-n", "5000", "--out", "{out}", "--model"], ["info", "--json"])
JSON_VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2**24,
    2**70,
    1e308,
    "",
    "x",
    "../../etc/passwd",
    "\0",
    [],
    {},
    [[]],
    {"a": 1},
)


def damaged(data, rng):
    """Return bytes with something flipped, cut, put in, repeated, zeroed or gone."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        if not data:
            break
        first, size = int(rng.integers(len(data))), int(rng.integers(1, 64))
        match rng.integers(7):
            case 0:
                data[first] ^= 1 << int(rng.integers(8))
            case 1:
                data[first : first + 4] = rng.bytes(4)
            case 2:
                del data[first : first + size]
            case 3:
                data[first:first] = rng.bytes(size)
            case 4:
                data[first:first] = data[first : first + size]
            case 5:
                data[first : first + size] = bytes(len(data[first : first + size]))
            case 6:
                del data[first if rng.integers(2) else 0 :]
    return bytes(data)


def other_graph(name, rng):
    """Return a well-formed graph with other operators, attributes or inputs than the good one."""
    nodes, used = tiny.NAMES[name]
    values = [item[0] for item in tiny.WEIGHTS if item[0] in used.split()]
    values += [value for value, *_ in tiny.ends(name)[0]]
    made, changed = [], set(rng.integers(len(nodes), size=int(rng.integers(1, 3))).tolist())
    for place, good in enumerate(nodes):
        if place in changed:
            output = OUTPUTS[good]
            count = int(rng.integers(1, 4))
            inputs = " ".join(rng.choice(values, count))
            key = str(
                rng.choice(["axis", "keepdims", "to", "perm", "alpha", "value_int", "direction"])
            )
            more = [(5, attribute(key, int(rng.integers(-3, 9))))] if rng.integers(2) else []
            good = node(str(rng.choice(sorted(OPERATORS))), inputs, output, more=more)
        else:
            output = OUTPUTS[good]
        values.append(output)
        made.append(good)
    return tiny.model(tiny.body(name, nodes=made))


def _outputs():
    found = {}
    for nodes, _ in tiny.NAMES.values():
        for made in nodes:
            for known in (
                "latent",
                "choice",
                "column",
                "beyond",
                "steps",
                "center",
                "around",
                "dots",
                "sum",
            ):
                if b"\x12" + bytes([len(known)]) + known.encode() in made:
                    found[made] = known
            for known in ("distances", "number", "h1", "h2", "h3", "h4", "h5", "h6", "x"):
                if b"\x12" + bytes([len(known)]) + known.encode() in made:
                    found[made] = known
    return found


OUTPUTS = _outputs()


def other_json(rng):
    """Return a manifest with one value replaced, removed or added, anywhere in it."""
    found = json.loads((MODEL / "bundle.json").read_bytes())
    holder = found
    while True:
        key = (
            rng.choice(sorted(holder))
            if isinstance(holder, dict)
            else int(rng.integers(len(holder)))
        )
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or not rng.integers(3):
            break
        holder = inner
    if isinstance(holder, dict) and not rng.integers(4):
        del holder[key]
    else:
        holder[key] = JSON_VALUES[rng.integers(len(JSON_VALUES))]
    return json.dumps(found).encode()


def rehash(folder):
    """Make the manifest's checksums fit the files, as whoever means harm would."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        manifest = json.loads((folder / "bundle.json").read_bytes())
        for name, entry in manifest["files"].items():
            data = (folder / name).read_bytes()
            entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        (folder / "bundle.json").write_text(json.dumps(manifest))


def strange_bundle(folder, rng):
    """Damage the bundle; return the exit codes that may come of it."""
    names = sorted(path.name for path in folder.iterdir())
    graphs = [name for name in names if name.endswith(".onnx")]
    name, graph = str(rng.choice(names)), str(rng.choice(graphs))
    path = folder / name
    kind = int(rng.integers(12))
    if kind == 0:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return {0, 3, 6}
    if kind in (1, 2):
        (folder / graph).write_bytes(damaged((folder / graph).read_bytes(), rng))
    elif kind in (3, 4, 5):
        (folder / graph).write_bytes(other_graph(graph, rng))
    elif kind == 6:
        (folder / "decoder.onnx").write_bytes(CRAFTED[int(rng.integers(len(CRAFTED)))])
        rehash(folder)
        return {3}
    elif kind in (7, 8):
        (folder / "bundle.json").write_bytes(other_json(rng))
        return {0, 3, 5, 6}
    elif kind == 9:
        other = folder / str(rng.choice(names))
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
    elif kind == 10:
        match rng.integers(3):
            case 0:
                path.write_bytes(b"")
            case 1:
                os.truncate(path, MAX_BYTES + int(rng.integers(1, 2**30)))
                return {3, 6}
            case 2:
                path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))
    else:
        path.unlink()
        match rng.integers(5):
            case 0:
                path.symlink_to("/etc/passwd")
            case 1:
                path.symlink_to(MODEL / name)
            case 2:
                path.mkdir()
            case 3:
                os.mkfifo(path)
        return {3}
    if rng.integers(8):
        rehash(folder)
    return {0, 3, 5, 6}


def bundle_case(number, folder):
    """Return the arguments of a command on a damaged bundle, and the exit codes that may come of it."""
    rng = np.random.default_rng([number, 1])
    strange = folder / "b"
    shutil.copytree(MODEL, strange)
    codes = strange_bundle(strange, rng)
    command = COMMANDS[int(rng.integers(len(COMMANDS)))]
    return [*(word.format(out=folder / "out.npy") for word in command), str(strange)], codes


def file_case(number, folder):
    """Return the arguments of a command on a damaged file of rows, and the exit codes that may come of it."""
    rng = np.random.default_rng([number, 2])
    suffix = READY[number % len(READY)]
    path = folder / f"rows{suffix}"
    cells(path, rng.normal(size=(int(rng.integers(1, 60)), 2)), ("x", "y"))
    path.write_bytes(damaged(path.read_bytes(), rng))
    command = "encode" if rng.integers(2) else "reconstruct"
    return [command, str(path), "--model", str(MODEL), "--out", str(folder / "out.npy")], {0, 7}


def run(arguments):
    """Run a command here; return its exit code and what reached the file descriptor of stderr."""
    with tempfile.TemporaryFile() as taken, open(os.devnull, "w") as nothing:
        kept = os.dup(2), os.dup(1)
        os.dup2(taken.fileno(), 2)
        os.dup2(nothing.fileno(), 1)
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(2), "w")
        try:
            sys.argv = ["scgan", *arguments]
            cli.main()
        except SystemExit as stop:
            code = stop.code
        except Exception as error:
            code = f"{type(error).__name__}: {error}"
        finally:
            with suppress(OSError):
                sys.stdout.close()
                sys.stderr.close()
            sys.stdout, sys.stderr = streams
            os.dup2(kept[0], 2)
            os.dup2(kept[1], 1)
            for descriptor in kept:
                os.close(descriptor)
        taken.seek(0)
        return code, taken.read().decode(errors="replace")


def fault(make, number):
    """Run a case; return what is wrong with how it ended, or an empty text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments, codes = make(number, folder)
        code, err = run(arguments)
        left = sorted(path.name for path in folder.iterdir() if "out" in path.name)
        wrote = "--out" in arguments and code == 0
    err = err.removeprefix("device: cpu\n")
    said = f"{make.__name__} {number}: {' '.join(arguments[:3])} ended with {code}: {err[-2000:]!r}"
    if code not in codes:
        return said
    if code == 0 and err.replace(f"5000 rows: {folder / 'out.npy'}\n", "").count("\n") > 1:
        return said
    if code != 0 and not (err.startswith("scgan: ") and err.count("\n") == 1 and len(err) < 1000):
        return said
    if left != (["out.npy"] if wrote else []):
        return f"{said}; left {left}"
    return ""


def serve(connection, make, model):
    """Answer case numbers with what was wrong, in bounded memory."""
    import resource

    use(model)
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES * 2**30, GIBIBYTES * 2**30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (number := connection.recv()) is not None:
        connection.send(fault(make, number))


def use(model):
    """Take the good bundle of all cases."""
    global MODEL
    MODEL = Path(model)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        use(bundle.save(Path(place) / "tiny", tiny.MANIFEST, tiny.GRAPHS, tiny.EXTRAS))
        for word in sys.argv[1:]:
            for case in (bundle_case, file_case):
                print(fault(case, int(word)) or f"{case.__name__} {word}: fine")

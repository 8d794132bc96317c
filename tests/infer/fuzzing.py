"""Damage, by number: case n is a function of n alone.

A case is a damaged bundle, file of rows or run folder, a command on it, and the exit codes that may come of it.
"""

import hashlib
import importlib
import json
import os
import re
import resource
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import tiny
from onnx_bytes import attribute, node
from suffixes import READY
from test_bundle import REFUSED
from test_formats_bad import cells

from scgan_infer.bundle.rules import MAX_BYTES, OPERATORS
from scgan_train import app as cli

MOST_BYTES, SECONDS = 2 * 2**30, 20  # of memory in use, of computing
ROOM = 8 * 2**30  # of addresses, so that one case takes no machine down
RUN = Path(__file__).parents[1] / "runs" / "version-2"
CRAFTED = [data for cases in REFUSED.values() for data in cases.values() if len(data) <= MAX_BYTES]
COMMANDS = (
    "verify {b}",
    "sample -n 5000 --out {out} --model {b}",
    "sample -n 100 --out {out} --cluster 1 --model {b}",
    "sample -n 100 --out {out} --where y=b --model {b}",
    "encode {rows} --out {out} --model {b}",
    "reconstruct {rows} --out {out} --model {b}",
    "info {b}",
    "info --json {b}",
)
DEEP = [[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]
NUMBERS = (-1, 0, 1, 2, 0.5, 4096, 65536, 2**24, 2**63, 2**70, 1e308)
TEXTS = ("", "x", "../../etc/passwd", "\0", "\ud800", "a\u202eb", "category", 300 * "y")
JSON_VALUES = (*NUMBERS, *TEXTS, None, True, [], {}, [[]], {"a": 1}, DEEP, 5000 * [1])
RAW = (b"NaN", b"-Infinity", b"1e999", b"[" * 100_000, b'{"a":1,"a":2}', b"\xff\xfe", b"1" * 5000)


# lines that are no failure: what is done, on what, and how far it is
SAID = re.compile(r"device: |bundle: |note: |\d+ rows: |[a-z]+: [\d,]+ (of|s)\b")


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


def other_json(data, rng):
    """Return a JSON file's bytes with one value replaced or removed, anywhere in it, or with what is no JSON."""
    found = json.loads(data)
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
    if rng.integers(8):
        return json.dumps(found).encode()
    holder[key] = "put here"
    return json.dumps(found).encode().replace(b'"put here"', RAW[rng.integers(len(RAW))])


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
    elif kind in (3, 4, 5) and not (folder / "head.onnx").exists():
        (folder / graph).write_bytes(other_graph(graph, rng))
    elif kind == 6:
        (folder / "decoder.onnx").write_bytes(CRAFTED[int(rng.integers(len(CRAFTED)))])
        rehash(folder)
        return {3}
    elif kind in (7, 8):
        (folder / "bundle.json").write_bytes(other_json((folder / "bundle.json").read_bytes(), rng))
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
                path.symlink_to(PLACE / "tiny" / name)
            case 2:
                path.mkdir()
            case 3:
                os.mkfifo(path)
        return {3}
    if rng.integers(8):
        rehash(folder)
    return {0, 3, 5, 6}


def case(number, folder):
    """Return the words of a command, and the exit codes that may come of it."""
    rng = np.random.default_rng([number, 1])
    make = rng.choice([bundle_case, file_case, run_case], p=[0.55, 0.42, 0.03])
    return make(rng, folder)


def bundle_case(rng, folder):
    """Return the words of a command on a damaged bundle, and the exit codes that may come of it."""
    strange = folder / "b"
    shutil.copytree(PLACE / ("chained" if rng.integers(3) == 0 else "tiny"), strange)
    codes = strange_bundle(strange, rng)
    command = str(rng.choice(COMMANDS))
    if command.startswith(("sample", "encode")):  # which have no use for the decoder alone
        codes = codes | {0}
    if "{rows}" in command:
        np.save(folder / "rows.npy", np.ones((100, 2), np.float32))
    if (
        "--" in command
    ):  # what the good bundle has no use for, or a column that the damaged one has no more
        codes = codes | {2, 7}
    words = command.format(b=strange, out=folder / "out.npy", rows=folder / "rows.npy")
    return words.split(), codes


def file_case(rng, folder):
    """Return the words of a command on a damaged file of rows, and the exit codes that may come of it."""
    suffix = str(rng.choice(READY))
    path = folder / f"rows{suffix}"
    cells(path, rng.normal(size=(int(rng.integers(1, 60)), 2)), ("x", "y"))
    path.write_bytes(damaged(path.read_bytes(), rng))
    if rng.integers(4) == 0:
        return ["inspect", str(path)], {0, 7}
    command = "encode" if rng.integers(2) else "reconstruct"
    model = str(PLACE / "tiny")
    return [command, str(path), "--model", model, "--out", str(folder / "out.npy")], {0, 7}


def run_case(rng, folder):
    """Return the words that export a damaged run folder, and the exit codes that may come of it."""
    shutil.copytree(PLACE / "run", folder / "run")
    path, other = (folder / "run" / str(name) for name in rng.choice(sorted(os.listdir(RUN)), 2))
    match rng.integers(5):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(other.read_bytes())
        case 2 | 3:
            path.write_bytes(damaged(path.read_bytes(), rng))
        case 4:
            facts = folder / "run" / "run.json"
            facts.write_bytes(other_json(facts.read_bytes(), rng))
    return ["export", str(folder / "run"), "--out", str(folder / "out")], {0, 3, 5}


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


def fault(number):
    """Run a case; return what is wrong with how it ended, or an empty text."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words, codes = case(number, folder)
        code, err = run(words)
        left = sorted(path.name for path in folder.iterdir() if "out" in path.name)
    lines = [line for line in err.splitlines() if not SAID.match(line)]
    one = len(lines) == 1 and lines[0].startswith("scgan: ") and len(lines[0]) < 1000
    wrong = [] if code in codes and (one if code else not lines) else ["that"]
    outputs = [name for name in (Path(word).name for word in words) if name.startswith("out")]
    if left != (outputs if code == 0 else []):
        wrong.append(f"left {left}")
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if most > MOST_BYTES:
        wrong.append(f"took {most} bytes of memory")
    about = f"case {number}: {' '.join(words)} ended with {code}: {err[-2000:]!r}"
    return f"{about}: wrong: {', '.join(wrong)}" if wrong else ""


def serve(connection, place):
    """Answer case numbers with what was wrong, in bounded memory; SIGXCPU ends who computes too long at one."""
    importlib.import_module("scgan_train.exporting.exporter")
    use(place)
    resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        number = connection.recv()
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + SECONDS + 1, -1))
        connection.send(fault(number))


def use(place):
    """Take the good bundles of all cases from this folder, and make them where they are not."""
    global PLACE
    PLACE = Path(place)
    if not any(PLACE.iterdir()):
        tiny.save(PLACE / "tiny")
        tiny.save(PLACE / "chained", *tiny.chained((0.5, 0.5)))
        shutil.copytree(RUN, PLACE / "run")
        facts = json.loads((RUN / "run.json").read_text())
        facts["files_sha256"] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in [*RUN.glob("*.safetensors"), RUN / "held_out.npy"]
        }
        (PLACE / "run" / "run.json").write_text(json.dumps(facts))

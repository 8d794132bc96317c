"""How training scales with rows and with columns: seconds, peak memory, and how hard samples are to tell from data.

    python benchmarks/scale.py                       all cases, about twenty minutes on one core
    python benchmarks/scale.py 1000x2 digits         these alone

A case is ROWSxCOLUMNS: twelve curved pieces of at most six dimensions each, with some noise in every column, in
a .npy file; or `digits`, scikit-learn's 1,797 rows of 64 whole numbers, 60 % of them trained on. Each runs in a
process of its own with the default preset, from the file to a bundle. Seconds are of processor time; they and the peak
memory (libraries first, then the rest) are taken when the run is finished. C2ST, off and missed are those of
`scgan evaluate`, against rows not trained on, beside what other such rows score.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CASES = (
    *("1000x2", "10000x2", "100000x2", "1000000x2", "5000000x2"),
    *("20000x4", "20000x8", "20000x16", "20000x32", "20000x64", "digits"),
)
PIECES, SHEET, NOISE = 12, 6, 0.05
JUDGES = 20_000
CHUNK = 1_000_000


def pieces(rows: int, columns: int, seed: int) -> Floats:
    """Return rows on curved pieces; pieces depend on the number of columns alone, rows on the seed."""
    shape, rng = np.random.default_rng(columns), np.random.default_rng([seed, columns])
    sheet = min(columns, SHEET)
    centres = 4 * shape.standard_normal((PIECES, columns))
    flat, bent = shape.standard_normal((2, PIECES, sheet, columns)) / sheet**0.5
    piece = rng.integers(PIECES, size=rows)
    place = rng.standard_normal((rows, sheet))
    made = centres[piece] + NOISE * rng.standard_normal((rows, columns))
    for k in range(PIECES):
        mine = piece == k
        made[mine] += place[mine] @ flat[k] + 0.5 * np.sin(2 * place[mine]) @ bent[k]
    return made.astype(np.float32)


def written(case: str, path: Path) -> Floats:
    """Write a case's file and return rows to judge by."""
    if case == "digits":
        from sklearn.datasets import load_digits

        rows = np.random.default_rng(0).permutation(load_digits().data.astype(np.float32))
        np.save(path, rows[: int(0.6 * len(rows))])
        return rows[int(0.6 * len(rows)) :]
    rows, columns = map(int, case.split("x"))
    file = np.lib.format.open_memmap(path, "w+", np.float32, (rows, columns))
    for at in range(0, rows, CHUNK):
        file[at : at + CHUNK] = pieces(min(CHUNK, rows - at), columns, 1 + at)
    return pieces(JUDGES, columns, 0)


def peak() -> float:
    """Return this process's peak memory, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(case: str, folder: Path) -> dict[str, Any]:
    """Run a case whose file is written."""
    import scgan_infer
    import scgan_train
    from scgan_infer.judging.figures import evaluate
    from scgan_train import config as configs
    from scgan_train import datasets
    from scgan_train.training.stages import train

    before, began = peak(), time.process_time()
    settings = configs.from_dict({"device": "cpu"})
    source, table = datasets.load(folder / "rows.npy", settings)
    read = time.process_time() - began
    run = train(table, settings, folder / "run", source)
    seconds, most = time.process_time() - began, peak()
    model = scgan_infer.load(scgan_train.export(run, folder / "bundle"), device="cpu")
    judges = np.load(folder / "judges.npy")
    figures = evaluate(judges, model.sample(3 * len(judges) // 2), columns=model.columns).overall
    return {
        "before": before,
        "peak": most,
        "read": read,
        "seconds": seconds,
        "stages": run.seconds,
        "sizes": dict(model.manifest.sizes),
        "map": model.manifest.mapper,
        **{name: figures[name]._asdict() for name in ("c2st", "off", "missed")},
    }


def main() -> None:
    """Run the cases that are asked for into scale.json; `tables.py` lays them out."""
    if len(sys.argv) == 4 and sys.argv[1] == "one":
        print(json.dumps(one(sys.argv[2], Path(sys.argv[3]))))
        return
    path = Path(__file__).with_name("scale.json")
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for case in sys.argv[1:] or CASES:
        with TemporaryDirectory() as folder:
            np.save(Path(folder) / "judges.npy", written(case, Path(folder) / "rows.npy"))
            command = [sys.executable, __file__, "one", case, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[case] = json.loads(done.stdout)
        path.write_text(json.dumps(results, indent=1), "utf-8")
        print(f"{case}: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    main()

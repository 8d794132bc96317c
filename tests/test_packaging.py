"""What is handed out: the wheel's metadata, and the recipe of a container."""

from __future__ import annotations

import fnmatch
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT, TOOLS = SETTINGS["project"], SETTINGS["tool"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_metadata_is_complete() -> None:
    assert PROJECT["dynamic"] == ["readme", "urls"]
    for field in ("description", "license", "authors", "keywords", "classifiers"):
        assert PROJECT[field], field
    for package in ("scgan_infer", "scgan_train"):
        assert (ROOT / package / "py.typed").is_file()
    assert not any("License" in classifier for classifier in PROJECT["classifiers"])


@pytest.mark.parametrize("home", ["", "https://example.org/people/scgan"])
def test_an_index_is_shown_what_it_can_reach(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    """Pictures and files of the checkout only where they have a home; hatchling runs this where a wheel is built."""
    interface = SimpleNamespace(MetadataHookInterface=object)
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["CustomMetadataHook"]()
    hook.root, hook.config = str(ROOT), {"home": home}
    metadata: dict[str, dict[str, str]] = {}
    hook.update(metadata)
    text = metadata["readme"]["text"]
    readme = (ROOT / "README.md").read_text("utf-8")
    preview = "exported/checkerboard/preview.png"
    assert f"]({preview})\n" in readme
    assert not re.search(r"\]\((?!https?:)", text)
    assert (preview in text) == bool(home)
    headings, code = re.compile("(?m)^#+ .*$"), re.compile("(?s)```.*?```")
    assert headings.findall(text) == headings.findall(readme)
    assert code.findall(text) == code.findall(readme)
    if not home:
        assert metadata["urls"] == {}
        return
    assert text.count(home) == len(re.findall(r"\]\((?!https?:)", readme))
    assert f"]({home}/raw/HEAD/{preview})\n\n" in text
    assert f"[docs/given.md]({home}/blob/HEAD/docs/given.md)" in text
    assert metadata["urls"] == {
        "Homepage": home,
        "Issues": f"{home}/issues",
        "Documentation": f"{home}/blob/HEAD/README.md",
    }


def test_the_project_has_a_home_or_says_that_it_has_none() -> None:
    home = TOOLS["hatch"]["metadata"]["hooks"]["custom"]["home"]
    assert home == "" or re.fullmatch(r"https://\S*[^/\s]", home)


def test_the_container_holds_the_light_runtime_and_runs_as_nobody_special() -> None:
    steps = instructions()
    known = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in steps} <= known
    bases = [rest.split()[0] for word, rest in steps if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim", base) for base in bases)
    assert [rest for word, rest in steps if word == "USER"] == [
        "10001"
    ]  # a host may not know its name
    order = [word for word, _ in steps]
    assert order.index("USER") > max(k for k, word in enumerate(order) if word == "RUN")
    assert ("ENTRYPOINT", '["scgan"]') in steps
    runs = [rest for word, rest in steps if word == "RUN"]
    for line in runs:
        assert "pip" not in line or "--no-cache-dir" in line
        assert shlex.split(line)
    assert any("[cpu]" in line and "-c /wheels/constraints.txt" in line for line in runs)
    assert not any("[train]" in line for line in runs)


def test_what_the_container_is_built_of_is_sent_to_it() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    needed = [
        "constraints.txt",
        "pyproject.toml",
        "hatch_build.py",
        "README.md",
        "LICENSE",
        "docs/scgan.1",
    ]
    needed += ["scgan_infer/__init__.py", "exported/eight_gaussians/bundle.json"]
    for name in needed:
        assert (ROOT / name).is_file()
        parents = [name, *map(str, Path(name).parents)]
        assert not any(fnmatch.fnmatch(part, rule) for part in parents for rule in ignored), name

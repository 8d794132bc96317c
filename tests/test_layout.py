"""The direction of imports: the command line, then training, then inference; never back, no circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("scgan_infer", "scgan_train")
    for path in (ROOT / package).rglob("*.py")
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of this project that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else str(node.module) for name in inner)


def at_import_time(path: Path) -> ast.Module:
    """Return a module without its functions and what only type checkers read."""
    tree = ast.parse(path.read_text("utf-8"))
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return tree


def test_there_is_no_circle_of_imports() -> None:
    graph = {
        name: {other for other in imported(at_import_time(path)) if other in MODULES} - {name}
        for name, path in MODULES.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_inference_imports_nothing_of_training_and_no_package_the_shim() -> None:
    for name, path in MODULES.items():
        names = {other.partition(".")[0] for other in imported(ast.parse(path.read_text("utf-8")))}
        assert "cli" not in names, name
        if name.startswith("scgan_infer"):
            assert not names & {"scgan_train", "torch", "onnx", "spox"}, name


def test_lines_are_not_longer_than_ruff_formats_them() -> None:
    """Its own limit lets docstrings, comments and strings be longer, here and in tests."""
    for name, path in MODULES.items():
        assert max(map(len, path.read_text("utf-8").splitlines())) <= 100, name


def test_nothing_of_the_library_knows_the_command_line() -> None:
    for name, path in MODULES.items():
        if name.startswith("scgan_train.") and not name.startswith(
            ("scgan_train.app", "scgan_train.__main__")
        ):
            found = set(imported(ast.parse(path.read_text("utf-8"))))
            assert not {other for other in found if other.startswith("scgan_train.app")}, name


def test_nobody_is_told_to_install_scgan_from_an_index_that_lacks_it() -> None:
    """Another's package of that name would be what they get."""
    pages = [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md")]
    pages += [*ROOT.glob("examples/**/*.md"), *MODULES.values()]
    told = re.compile(r"pip install (-\S+ )*['\"]?scgan")
    assert [page for page in pages if told.search(page.read_text("utf-8"))] == []

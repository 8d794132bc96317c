"""Check, without a network, what scgan depends on: consistency, licences and published advisories.

Prints a line for each fault and ends with 1 if there is one. `advisories.toml` is a hand-kept list
of what was published when it was last changed; `make audit` asks a vulnerability service for the
rest.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from licences import licence, needed
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

HERE = Path(__file__).parent
ROOT = HERE.parent
# MPL covers tools that tests run, used as they are;
# NVIDIA's own libraries come with torch's CUDA wheels.
PERMISSIVE = re.compile(
    r"(0BSD|(3-Clause )?BSD([- ][23]-Clause)?( License)?|BSL-1\.0|MIT(-0|-CMU)?( License)?"
    r"|ISC( License \(ISCL\))?|Apache([- ]2\.0| Software License)|(LLVM-exception)|Zlib|CC0-1\.0"
    r"|PSF-2\.0|Python Software Foundation License"
    r"|MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\))"
)
NVIDIA = ("nvidia-", "cuda-")


def pins() -> dict[str, Version]:
    """Return the versions that constraints.txt pins."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def floors() -> dict[str, Version]:
    """Return the lowest versions that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    lowest: dict[str, Version] = {}
    for requirement in map(
        Requirement, [*project["dependencies"], *(line for lines in extras for line in lines)]
    ):
        bounds = [
            Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")
        ]
        name = canonicalize_name(requirement.name)
        lowest[name] = min([*bounds, *([lowest[name]] if name in lowest else [])])
    return lowest


def unfit() -> Iterator[str]:
    """Yield what pip finds missing or in conflict among the installed packages."""
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    if check.returncode:
        yield from (check.stdout + check.stderr).splitlines()


def unfree() -> Iterator[str]:
    """Yield the packages with a licence off the list."""
    for package in needed():
        name, expression = package.metadata["Name"], licence(package)
        terms = re.split(r" AND | OR | WITH |, ", expression)
        if not name.startswith(NVIDIA) and not all(map(PERMISSIVE.fullmatch, terms)):
            where = f"{name} {package.version}: licence {expression!r}"
            yield f"{where} is not on the list of docs/audit.py"


def unlisted() -> Iterator[str]:
    """Yield where docs/licences.md has another version than the pinned one."""
    rows = re.findall(
        r"^\| (\S+) \| (\d\S*) \|", (HERE / "licences.md").read_text("utf-8"), re.MULTILINE
    )
    listed = {canonicalize_name(name): version for name, version in rows}
    for name, version in pins().items():
        if Version(listed.get(name, "0")).public != version.public:
            other = f"docs/licences.md has {name} {listed.get(name)}, constraints.txt {version}"
            yield f"{other}; run `make licences`"


def advised(versions: dict[str, Version], least: bool) -> Iterator[str]:
    """Yield the versions that an advisory is about, unless the list accepts it.

    With `least`, versions are the lowest allowed ones, and so those above them where a range begins
    or ends count, too.
    """
    for advisory in tomllib.loads((HERE / "advisories.toml").read_text("utf-8"))["advisory"]:
        affected, version = SpecifierSet(advisory["affected"]), versions.get(advisory["package"])
        if version is None or advisory.get("accepted"):
            continue
        bounds = [Version(part.version) for part in affected] if least else []
        for one in (version, *(bound for bound in bounds if bound > version)):
            if one in affected:
                allows = "pyproject.toml allows" if least else "constraints.txt has"
                reason = f"{advisory['id']} ({advisory['source']})"
                yield f"{allows} {advisory['package']} {one}: {reason}"
                break


def faults() -> list[str]:
    """Return everything that is wrong."""
    return [
        *unfit(),
        *unfree(),
        *unlisted(),
        *advised(pins(), least=False),
        *advised(floors(), least=True),
    ]


if __name__ == "__main__":
    lines = faults()
    print("\n".join(lines) or "no faults")
    sys.exit(bool(lines))

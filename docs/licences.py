"""Print a table of the packages that scgan needs and their licences, from what the packages say of themselves."""

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLASSIFIER = "License :: OSI Approved :: "


def needed() -> list[Distribution]:
    """Return the installed packages that scgan with all its extras leads to, by name."""
    every = distribution("scgan").metadata.get_all("Provides-Extra") or []
    found: dict[str, Distribution] = {}
    todo = {("scgan", extra) for extra in ("", *every)}
    done: set[tuple[str, str]] = set()
    while todo:
        name, extra = asked = todo.pop()
        done.add(asked)
        try:
            found[name] = package = distribution(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
        todo |= set(asked_for(package, extra)) - done
    del found["scgan"]
    return [found[name] for name in sorted(found)]


def asked_for(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """Yield the names and extras that a package with an extra asks for on this machine."""
    for requirement in map(Requirement, package.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for wanted in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), wanted


def licence(package: Distribution) -> str:
    """Return a package's licence: its SPDX expression, else its classifier, else its first line of text."""
    about = package.metadata
    if found := about.get("License-Expression"):
        return str(found)
    named = [
        c.removeprefix(CLASSIFIER)
        for c in about.get_all("Classifier") or []
        if c.startswith(CLASSIFIER)
    ]
    return ", ".join(named) or str(about.get("License") or "not said").strip().splitlines()[0][:60]


def main() -> None:
    """Print the table."""
    print(
        "# Licences\n\nOf the packages that `make` installs for scgan (`make licences` writes this file).\n"
    )
    print("| package | version | licence |\n| --- | --- | --- |")
    for package in needed():
        print(f"| {package.metadata['Name']} | {package.version} | {licence(package)} |")


if __name__ == "__main__":
    main()

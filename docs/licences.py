"""Print the packages that scgan needs and their licences, from the packages' metadata."""

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLASSIFIER = "License :: OSI Approved :: "


def needed() -> list[Distribution]:
    """Return the installed packages that scgan with all its extras leads to, by name."""
    extras = distribution("scgan").metadata.get_all("Provides-Extra") or []
    packages: dict[str, Distribution] = {}
    pending = {("scgan", extra) for extra in ("", *extras)}
    visited: set[tuple[str, str]] = set()
    while pending:
        name, extra = pair = pending.pop()
        visited.add(pair)
        try:
            packages[name] = package = distribution(name)
        except PackageNotFoundError:  # an extra that is not installed
            continue
        pending |= set(required(package, extra)) - visited
    del packages["scgan"]
    return [packages[name] for name in sorted(packages)]


def required(package: Distribution, extra: str) -> Iterator[tuple[str, str]]:
    """Yield the names and extras that a package with an extra requires on this machine."""
    for requirement in map(Requirement, package.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for wanted in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), wanted


def licence(package: Distribution) -> str:
    """Return a package's licence: SPDX expression, else classifier, else its first line of text."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [
        c.removeprefix(CLASSIFIER)
        for c in about.get_all("Classifier") or []
        if c.startswith(CLASSIFIER)
    ]
    return (
        ", ".join(classifiers)
        or str(about.get("License") or "not said").strip().splitlines()[0][:60]
    )


def main() -> None:
    """Print the table."""
    print(
        "# Licences\n\n"
        "Of the packages that `make` installs for scgan (`make licences` writes this file).\n"
    )
    print("| package | version | licence |\n| --- | --- | --- |")
    for package in needed():
        print(f"| {package.metadata['Name']} | {package.version} | {licence(package)} |")


if __name__ == "__main__":
    main()

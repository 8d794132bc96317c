"""Print a table of the installed packages and their licences, from what the packages say of themselves."""

from importlib.metadata import Distribution, distributions

CLASSIFIER = "License :: OSI Approved :: "


def licence(package: Distribution) -> str:
    """Return a package's licence: its SPDX expression, else its classifier, else its first line of text."""
    about = package.metadata
    if found := about.get("License-Expression"):
        return str(found)
    named = [
        c.removeprefix(CLASSIFIER) for c in about.get_all("Classifier") or [] if c.startswith(CLASSIFIER)
    ]
    return ", ".join(named) or str(about.get("License") or "not said").strip().splitlines()[0][:60]


def main() -> None:
    """Print the table."""
    rows = sorted(
        {
            (p.metadata["Name"], p.version, licence(p))
            for p in distributions()
            if p.metadata["Name"] != "scgan"
        },
        key=lambda row: row[0].lower(),
    )
    print("# Licences\n\nOf the packages that `make` installs (`make licences` writes this file).\n")
    print("| package | version | licence |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()

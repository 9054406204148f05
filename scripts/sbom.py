"""List the installed packages of this Python's environment: name, version, licence.

With --json: the same as a CycloneDX document. Reads the packages' metadata; nothing is fetched.

usage: .venv/bin/python scripts/sbom.py [--json]
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution, distributions

UNKNOWN = "not told"


def licence(package: Distribution) -> str:
    """What the metadata says: the SPDX expression, the classifiers, or the first line of a text."""
    told = package.metadata
    if expression := told.get("License-Expression"):
        return expression
    classes = [c.split(" :: ") for c in told.get_all("Classifier") or ()]
    if named := [c[-1] for c in classes if c[0] == "License" and c[-1] != "OSI Approved"]:
        return "; ".join(named)
    lines = (told.get("License") or "").strip().splitlines()
    return lines[0] if lines and lines[0] != "UNKNOWN" else UNKNOWN


def packages() -> list[tuple[str, str, str]]:
    """(name, version, licence) of every installed package, by name."""
    found = {
        p.metadata["Name"].lower(): (p.metadata["Name"], p.version, p) for p in distributions()
    }
    return [(name, version, licence(p)) for _, (name, version, p) in sorted(found.items())]


def cyclonedx(rows: list[tuple[str, str, str]]) -> dict[str, object]:
    """The rows as a CycloneDX 1.5 document."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
                "licenses": [{"license": {"name": text}}],
            }
            for name, version, text in rows
        ],
    }


def main() -> int:
    """Print the table, or with --json the document."""
    rows = packages()
    if "--json" in sys.argv[1:]:
        print(json.dumps(cyclonedx(rows), indent=1))
        return 0
    width = max(len(name) for name, _, _ in rows)
    for name, version, text in rows:
        print(f"{name:{width}}  {version:20}  {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""scripts/sbom.py lists what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

from helpers.paths import ROOT


def listing(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "sbom.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_package_has_its_version_and_licence() -> None:
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in listing().splitlines()}
    assert rows["numpy"][0] == version("numpy")
    assert "BSD" in rows["numpy"][1]
    assert rows["pytest"][1] == "MIT"
    components = {part["name"]: part for part in json.loads(listing("--json"))["components"]}
    assert components.keys() == rows.keys()
    assert components["pytest"]["purl"] == f"pkg:pypi/pytest@{version('pytest')}"

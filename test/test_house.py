"""The rules of the house that a machine can check: who may import what, one version, one name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.paths import ROOT

import d3_ros
from d3_ros.__main__ import COMMANDS

PACKAGE = ROOT / "d3_ros"

# A place may import itself and the places of the floors below its own.
FLOOR = {
    "types": 0,
    "errors": 0,
    "settings": 0,
    "metrics": 0,
    "imaging": 1,
    "geometry": 1,
    "network": 2,
    "messages": 2,
    "pipeline": 3,
    "data": 3,
    "synthetic": 4,
    "evaluation": 4,
    "training": 5,
    "ros": 5,
    "demo": 6,
    "bench": 6,
    "commands": 7,
    "__main__": 7,
}

CLIENT_LIBRARY = {"rclpy", "tf2_ros", "launch", "launch_ros", "ament_index_python"}
MESSAGES = {
    "builtin_interfaces",
    "cv_bridge",
    "diagnostic_msgs",
    "geometry_msgs",
    "lifecycle_msgs",
    "nav_msgs",
    "rcl_interfaces",
    "sensor_msgs",
    "sensor_msgs_py",
    "std_msgs",
    "std_srvs",
    "tf2_msgs",
}
# Package -> the places (folders or modules of d3_ros) that may import it.
ONLY_IN = {
    **{name: {"ros", "demo", "bench"} for name in CLIENT_LIBRARY},
    **{name: {"ros", "demo", "bench", "messages", "data/bag"} for name in MESSAGES},
    "torch": {"network", "training", "geometry", "bench/network"},
    "diffusers": {"network", "training", "bench/network"},
    "transformers": {"network", "bench/network"},
    "safetensors": {"network", "training"},
    "huggingface_hub": {"network"},
    "onnx": {"network"},
    "onnxruntime": {"network"},
    "accelerate": {"training"},
    "peft": {"training"},
    "h5py": {"data"},
    "embreex": {"synthetic"},
    "rosbags": {"data/bag", "synthetic"},
}
EVERYWHERE = {"numpy", "cv2", "scipy", "tqdm", "yaml"}
MOST_MODULES_IN_A_FOLDER = 20


class House:
    """The modules below a package folder, and what each of them imports."""

    def __init__(self, folder: Path) -> None:
        self.package = folder.name
        self.paths = {
            ".".join([self.package, *_parts(path.relative_to(folder))]): path
            for path in sorted(folder.rglob("*.py"))
        }
        self.folder = folder

    def imports(self, module: str) -> Iterator[str]:
        """Full names of what a module imports, inside functions too, but not for types alone."""
        tree = ast.parse(self.paths[module].read_text(encoding="utf-8"))
        for_types = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in for_types:
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}: write imports in full"
                assert node.module is not None
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    yield full if full in self.paths else node.module

    def upward_imports(self) -> list[str]:
        """Imports of a place on the same floor or above it."""
        found = []
        for module in self.paths:
            place = _place(module)
            if not place:  # the package itself
                continue
            for name in self.imports(module):
                other = _place(name) if name.split(".")[0] == self.package else ""
                if other in FLOOR and other != place and FLOOR[other] >= FLOOR[place]:
                    found.append(f"{module} imports {name}")
        return found

    def foreign_imports(self) -> list[str]:
        """Imports of third-party packages in places where they do not belong."""
        found = []
        for module, path in self.paths.items():
            where = path.relative_to(self.folder).with_suffix("").as_posix() + "/"
            for name in self.imports(module):
                top = name.split(".")[0]
                if top in {self.package, *EVERYWHERE, *sys.stdlib_module_names}:
                    continue
                if not any(where.startswith(f"{allowed}/") for allowed in ONLY_IN.get(top, ())):
                    found.append(f"{module} imports {top}")
        return found

    def circles(self) -> list[list[str]]:
        """Files that import each other, directly or through others."""
        graph = {
            module: {name for name in self.imports(module) if name in self.paths} - {module}
            for module in self.paths
        }
        rest = dict(graph)
        while True:  # take away what imports nothing that is left, then what nobody left imports
            used = {name for names in rest.values() for name in names}
            kept = {m: names & rest.keys() for m, names in rest.items() if names & rest.keys()}
            kept = {m: names for m, names in kept.items() if m in used}
            if kept == rest:
                return [sorted(rest)] if rest else []
            rest = kept

    def double_names(self) -> dict[str, list[str]]:
        """Public classes of one name in two modules."""
        where = defaultdict(list)
        for module, path in self.paths.items():
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    where[node.name].append(module)
        return {name: modules for name, modules in where.items() if len(modules) > 1}

    def full_folders(self) -> list[str]:
        """Folders with more modules than a reader can take in."""
        count: dict[Path, int] = defaultdict(int)
        for path in self.paths.values():
            count[path.parent] += 1
        return [str(folder) for folder, n in count.items() if n > MOST_MODULES_IN_A_FOLDER]


def _parts(relative: Path) -> list[str]:
    parts = list(relative.with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def _place(module: str) -> str:
    return [*module.split("."), ""][1]


@pytest.fixture(scope="module")
def house() -> House:
    return House(PACKAGE)


def test_imports_go_down(house: House) -> None:
    assert {_place(module) for module in house.paths} - {""} == FLOOR.keys()
    assert house.upward_imports() == []


def test_third_parties_are_imported_where_they_belong(house: House) -> None:
    assert house.foreign_imports() == []


def test_no_files_import_each_other(house: House) -> None:
    assert house.circles() == []


def test_one_name_is_one_class(house: House) -> None:
    assert house.double_names() == {}


def test_no_folder_is_too_full(house: House) -> None:
    assert house.full_folders() == []


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    """Each rule, broken on purpose in a package of a few files."""
    files = {
        "geometry/a.py": "from d3_ros.geometry import b\nclass Same: ...",
        "geometry/b.py": "def late():\n    from d3_ros.geometry.c import x",
        "geometry/c.py": "import d3_ros.geometry.a\nimport rclpy",
        "geometry/deep/er/d.py": "from d3_ros.data import x\nimport torch",
        "data/__init__.py": "class Same: ...",
        "data/bag/e.py": "from d3_ros.geometry.a import Same\nfrom sensor_msgs.msg import Image",
        "data/f.py": "from sensor_msgs.msg import Image",
        "pipeline.py": "import d3_ros.data.f",
    }
    for name, text in files.items():
        path = tmp_path / "d3_ros" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    for number in range(MOST_MODULES_IN_A_FOLDER + 1):
        (tmp_path / "d3_ros" / "data" / "bag" / f"m{number}.py").touch()
    planted = House(tmp_path / "d3_ros")
    assert planted.upward_imports() == [
        "d3_ros.geometry.deep.er.d imports d3_ros.data",
        "d3_ros.pipeline imports d3_ros.data.f",
    ]
    assert planted.foreign_imports() == [
        "d3_ros.data.f imports sensor_msgs",
        "d3_ros.geometry.c imports rclpy",
    ]
    assert planted.circles() == [[f"d3_ros.geometry.{name}" for name in "abc"]]
    assert planted.double_names() == {"Same": ["d3_ros.data", "d3_ros.geometry.a"]}
    assert planted.full_folders() == [str(tmp_path / "d3_ros" / "data" / "bag")]


def test_inference_never_imports_training() -> None:
    """A robot without the training packages must still run."""
    code = (
        "import sys, d3_ros.pipeline, d3_ros.network\n"
        "print([m for m in sys.modules if m.startswith(('d3_ros.training', 'embreex', 'rclpy'))])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_one_version_everywhere() -> None:
    package_xml = ElementTree.parse(ROOT / "package.xml").findtext("version")
    setup_py = re.search(r'version="([^"]+)"', (ROOT / "setup.py").read_text())
    changelog = re.search(r"^(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert setup_py is not None
    assert changelog is not None
    assert {package_xml, setup_py.group(1), changelog.group(1)} == {d3_ros.__version__}


def test_package_xml_names_every_ros_package_that_is_imported(house: House) -> None:
    declared = {
        element.text
        for element in ElementTree.parse(ROOT / "package.xml").getroot()
        if element.tag.endswith("depend")
    }
    declared |= {"tf2_ros"} & {name.removesuffix("_py") for name in declared}  # its Python module
    used = {
        name.split(".")[0]
        for place in (house, House(ROOT / "launch"))
        for module in place.paths
        for name in place.imports(module)
    } & (CLIENT_LIBRARY | MESSAGES)
    assert used <= declared
    assert {"rclpy", "sensor_msgs", "launch"} <= used


def test_package_xml_is_valid() -> None:
    linter = pytest.importorskip("ament_xmllint.main", reason="ament_xmllint comes with ROS")
    assert linter.main(argv=[str(ROOT / "package.xml")]) == 0


def test_every_command_is_there_and_helps(capsys: pytest.CaptureFixture[str]) -> None:
    from d3_ros.__main__ import main

    assert {path.stem for path in (PACKAGE / "commands").glob("*.py")} - {"__init__"} == set(
        COMMANDS
    )
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert name in out
        assert len(out.splitlines()) > 5, f"{name} --help teaches nothing"


def test_architecture_names_files_that_are_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)*\w+\.(?:py|yaml|md|rst))`", page)
    places = (ROOT, PACKAGE, PACKAGE / "geometry" / "alignment", PACKAGE / "ros" / "node")
    assert len(named) > 30
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


def test_the_readme_names_the_commands_that_matter() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("scripts/demo", "scripts/test", "ros2 launch d3_ros predictor.launch.py"):
        assert command in readme

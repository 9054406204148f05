"""Build and install recipe of an ament_python package: `colcon build` runs this file."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "d3_ros"
HERE = Path(__file__).resolve().parent


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """(destination, files) rows that install `folder` and all below it under share/d3_ros."""
    rows: dict[str, list[str]] = {}
    for path in sorted((HERE / folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            relative = path.relative_to(HERE)
            rows.setdefault(f"share/{PACKAGE}/{relative.parent}", []).append(str(relative))
    return list(rows.items())


def requirements(name: str) -> list[str]:
    """The packages that scripts/requirements/NAME.txt lists; their pins are there alone."""
    lines = (HERE / "scripts" / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name=PACKAGE,
    version="0.2.0",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *tree("launch"),
        *tree("config"),
        *tree("models"),
    ],
    python_requires=">=3.10",
    # What a robot needs comes with rosdep (package.xml). colcon test looks for the extra "test".
    install_requires=["setuptools"],
    extras_require={
        **{name: requirements(name) for name in ("torch", "training", "render", "docs")},
        "test": requirements("tests"),
    },
    zip_safe=False,
    maintainer="d3_ros maintainers",
    maintainer_email="d3-ros@users.noreply.github.com",
    description="Depth, surface normals and metric point clouds with D3-Predictor on ROS 2.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "predictor = d3_ros.ros.predictor_node:main",
            "synthetic_camera = d3_ros.ros.synthetic.synthetic_camera:main",
            "d3_ros = d3_ros.__main__:main",
        ],
    },
)

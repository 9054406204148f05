"""What a recipe says: frames to render, then a few training runs, each from the one before.

A recipe is a folder with recipe.yaml and the training configurations that it names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from d3_ros.errors import DataError
from d3_ros.training.config.train_config import TrainConfig, load_config
from d3_ros.training.config.yaml_config import Count, Range, Seed, Side, build, read_yaml

START = "start"  # `model.start` of a stage that begins from the recipe's own start
DATA = "data"  # folder of the rendered sets in the working folder
MOST_STAGES = 4


@dataclass(frozen=True)
class RenderedSet:
    """A folder of rendered frames, `data/NAME`, as `python -m d3_ros render` would write it.

    size: (height, width) in pixels.
    test: how many frames, the last ones, are kept for validation.
    height_m, tilt_deg: ranges (low, high) of the camera's height above the floor and of its
        downward tilt. None: as the scene has it.
    intrinsics: fx, fy, cx, cy in pixels. None: a random camera for each frame.
    assets: folders of pictures, or names of installed packages with pictures. Half of the
        materials that the pictures suit are taken from them.
    """

    name: str
    kinds: tuple[str, ...]
    frames: Count
    seed: Seed
    size: tuple[Side, Side]
    test: Annotated[int, Range(0, 1e9)] = 0
    height_m: tuple[float, float] | None = None
    tilt_deg: tuple[float, float] | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    assets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or Path(self.name).name != self.name:
            raise DataError(f"render: {self.name!r} cannot be the name of a folder")
        if self.test >= self.frames:
            raise DataError(f"render: {self.name} must have more than {self.test} frames")
        if (self.height_m is None) != (self.tilt_deg is None):
            raise DataError(f"render: give {self.name} both height_m and tilt_deg, or neither")
        if self.intrinsics is not None and min(self.intrinsics[:2]) <= 0:
            raise DataError(f"render: {self.name}: fx and fy of intrinsics must be positive")


@dataclass(frozen=True)
class RecipeStart:
    """The bundle that the first stage starts from.

    `bundle`: folder or name. `manifest_sha256`: of its bundle.json; another bundle is refused.
    `told`: what it is and where to get it.
    """

    bundle: str
    manifest_sha256: str | None = None
    told: str = ""


@dataclass(frozen=True)
class Recipe:
    """A recipe: sets to render, and the names of the stages' files, in order.

    A stage's output folder is the name of its file without `.yaml`. In a stage, relative paths of
    data and of earlier stages are below the working folder. `start` is None where the first stage
    makes a new network.
    """

    name: str
    render: tuple[RenderedSet, ...]
    stages: tuple[str, ...]
    start: RecipeStart | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.stages) <= MOST_STAGES:
            raise DataError(f"stages: a recipe has 1 to {MOST_STAGES}, not {len(self.stages)}")
        folders = [Path(stage).stem for stage in self.stages]
        for what, names in (("render", [one.name for one in self.render]), ("stages", folders)):
            if len(set(names)) < len(names):
                raise DataError(f"{what}: two have one name")
        if DATA in folders:
            raise DataError(f"stages: none may be called {DATA}: the rendered sets are there")


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.yaml.

    Raises:
        DataError: it cannot be read, or a key or value in it is wrong.
    """
    return build(Recipe, read_yaml(path), str(path))


def load_stages(recipe: Recipe, folder: Path, workdir: Path) -> dict[str, TrainConfig]:
    """The training configurations of a recipe, by the names of their output folders.

    Raises:
        DataError: a file is not there or wrong, or a stage starts from a later one.
    """
    stages: dict[str, TrainConfig] = {}
    for file in recipe.stages:
        config = load_config(folder / file)
        start = config.model.start
        if start == START and recipe.start is not None:
            start = recipe.start.bundle
        elif start and Path(start).parts[0] in stages:
            start = str(workdir / start)
        elif config.model.new is None:
            raise DataError(
                f"{folder / file}: model.start must be {START!r} or NAME/last of an earlier stage, "
                f"not {start!r}"
            )
        datasets = tuple(replace(one, path=str(workdir / one.path)) for one in config.data.datasets)
        stages[Path(file).stem] = replace(
            config,
            model=replace(config.model, start=start),
            data=replace(config.data, datasets=datasets),
        )
    return stages

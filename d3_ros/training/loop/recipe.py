"""A whole recipe by one call: frames are rendered, stages trained one after the other.

It may be interrupted at any moment. The same call goes on: rendered sets and finished stages are
not repeated, and a stage goes on from its newest checkpoint.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path

from d3_ros.errors import D3Error, DataError
from d3_ros.imaging.image_file import write_whole
from d3_ros.network.bundle.lookup import MANIFEST, find_bundle
from d3_ros.synthetic.dataset import VIEWS_PER_SCENE, check_kinds, render_folder, render_scene
from d3_ros.synthetic.mesh.picture_textures import PictureTextures, find_pictures
from d3_ros.synthetic.mesh.rig import Mounting, Rig
from d3_ros.training.config.recipe_config import DATA, Recipe, RenderedSet, load_recipe, load_stages
from d3_ros.training.config.recipes import RECIPE
from d3_ros.training.config.train_config import Stage, TrainConfig, load_config
from d3_ros.training.loop import checkpoints
from d3_ros.training.loop.pretrained_backbone import pretrained_file
from d3_ros.training.loop.profile import profile, step_seconds
from d3_ros.training.loop.results import LAST
from d3_ros.training.loop.train import train
from d3_ros.types import CameraIntrinsics

NOTE = "recipe.json"  # in the working folder: what it was begun with
BYTES_PER_PIXEL = 1.4  # on the disk, of picture, depth and normals together
WAIT_S = 1.0


def run_recipe(
    path: Path, workdir: Path, *, dry_run: bool, say: Callable[[str], None] = print
) -> Path | None:
    """Run the recipe of a recipe.yaml. Returns the bundle of its last stage.

    Args:
        path: the recipe.yaml.
        workdir: gets data/ and a folder for each stage; an earlier call of the same recipe in it
            is continued.
        dry_run: check everything and tell the cost, and do nothing; returns None.
        say: takes the lines of the cost.

    Raises:
        DataError, D3Error: the recipe, its start or the working folder is not usable.
        NonFiniteError: training diverged.
    """
    recipe = load_recipe(path)
    for one in recipe.render:
        check_kinds(one.kinds)
        _pictures(one)
        _rig(one)
    stages = load_stages(recipe, path.parent, workdir)
    _check_start(recipe)
    for config in stages.values():
        if config.model.skips is not None and config.model.skips.backbone is not None:
            pretrained_file()  # now, not after hours of rendering
    _check_workdir(recipe, path.parent, workdir)
    speaks = os.environ.get("RANK", "0") == "0"  # of several processes, one speaks and renders
    if speaks:
        for line in cost_lines(recipe, stages, workdir):
            say(line)
    if dry_run:
        return None
    if speaks:
        workdir.mkdir(parents=True, exist_ok=True)
        write_whole(workdir / NOTE, json.dumps(_note(recipe, path.parent), indent=1) + "\n")
        for one in _missing(recipe, workdir):
            _render(one, workdir)
    while _missing(recipe, workdir):  # the other processes wait for the one that renders
        time.sleep(WAIT_S)
    bundle = None
    for name, config in stages.items():
        output = workdir / name
        if not _finished(output, config):
            train(config, output)
        bundle = output / LAST
    return bundle


def cost_lines(recipe: Recipe, stages: Mapping[str, TrainConfig], workdir: Path) -> list[str]:
    """What is still to do: frames, disk, images and time as measured on this machine."""
    start = "random weights" if recipe.start is None else recipe.start.bundle
    lines = [f"{recipe.name}: in {workdir}, from {start}"]
    if recipe.start is not None and recipe.start.told:
        lines.append(f"  start: {recipe.start.told}")
    todo = _missing(recipe, workdir)
    frames = sum(one.frames for one in todo)
    pixels = sum(one.frames * one.size[0] * one.size[1] for one in todo)
    lines.append(
        f"  render {len(todo)} of {len(recipe.render)} sets: {frames:,} frames, "
        f"{BYTES_PER_PIXEL * pixels / 1e9:.2f} GB{_render_time(todo)}"
    )
    first = next(iter(stages.values()))
    total = 0.0
    for name, config in stages.items():
        done = _steps_done(workdir / name)
        images = sum(stage.steps * stage.batch for stage in config.stages)
        seconds = _run_seconds(config, first)
        told = "not timed here: its step is too large for this CPU"
        if seconds is not None:
            left = seconds * (1 - done / config.steps)
            total += left
            told = f"{seconds / config.steps:.2f} s a step, {_duration(left)} to go on one device"
        lines.append(
            f"  {name}: {config.steps:,} steps, {done:,} of them done; {images:,} images; {told}"
        )
    lines.append(f"  training together: {_duration(total)}, without the reading of frames")
    return lines


def _missing(recipe: Recipe, workdir: Path) -> list[RenderedSet]:
    return [one for one in recipe.render if not (workdir / DATA / one.name).is_dir()]


def _render(one: RenderedSet, workdir: Path) -> None:
    render_folder(
        workdir / DATA / one.name,
        frames=one.frames,
        seed=one.seed,
        rig=_rig(one),
        kinds=one.kinds,
        jobs=os.cpu_count() or 1,
        test_frames=one.test,
        pictures=_pictures(one),
    )


def _pictures(one: RenderedSet) -> PictureTextures | None:
    return find_pictures(one.assets) if one.assets else None


def _rig(one: RenderedSet) -> Rig:
    height, width = one.size
    mounting = camera = None
    if one.height_m is not None and one.tilt_deg is not None:
        mounting = Mounting(one.height_m, one.tilt_deg)
    if one.intrinsics is not None:
        camera = CameraIntrinsics(width, height, *one.intrinsics)
    return Rig((width, height), camera, mounting)


def _render_time(todo: list[RenderedSet]) -> str:
    """Estimated time of the sets on all cores, as text, from timing one scene of the first set."""
    if not todo:
        return ""
    one = todo[0]
    began = time.perf_counter()
    count = len(
        list(render_scene(one.seed, 0, VIEWS_PER_SCENE, _rig(one), one.kinds, _pictures(one)))
    )
    each = (time.perf_counter() - began) / max(count, 1) / (one.size[0] * one.size[1])
    seconds = sum(each * s.frames * s.size[0] * s.size[1] for s in todo) / (os.cpu_count() or 1)
    return f", about {_duration(seconds)}"


def _run_seconds(config: TrainConfig, first: TrainConfig) -> float | None:
    """Estimated seconds of all steps of a stage of the recipe; None: not timed.

    A step is timed with the first stage's network, since the stage's own start may not exist yet.
    The time of a step is taken to be proportional to its number of pixels.
    """
    train_vae, train_unet = config.model.train_vae, config.model.train_unet
    try:
        model = replace(first.model, train_vae=train_vae, train_unet=train_unet)
        config = replace(config, model=model)
    except DataError:  # the first stage's network cannot be trained as this one's
        return None
    each = step_seconds(config, profile(config))
    if each is None:
        return None
    last = config.stages[-1]
    measured = last.batch * _pixels(replace(last, more_sizes=()))
    if not measured:
        return each * config.steps
    pixels = sum(stage.steps * stage.batch * _pixels(stage) for stage in config.stages)
    return each * pixels / measured


def _pixels(stage: Stage) -> float:
    """Pixels of an image, on average over the sizes of a stage; 0: the bundle's size."""
    if stage.size is None:
        return 0.0
    sizes = (stage.size, *stage.more_sizes)
    return sum(height * width for height, width in sizes) / len(sizes)


def _steps_done(output: Path) -> int:
    return checkpoints.steps_done(output) or 0


def _finished(output: Path, config: TrainConfig) -> bool:
    return _steps_done(output) >= config.steps and (output / LAST / MANIFEST).is_file()


def _check_start(recipe: Recipe) -> None:
    if recipe.start is None:
        return
    wanted = recipe.start.manifest_sha256
    manifest = find_bundle(recipe.start.bundle) / MANIFEST
    if wanted is None or sha256(manifest.read_bytes()).hexdigest() == wanted:
        return
    raise D3Error(
        f"{manifest.parent} is not the bundle that the recipe starts from: {recipe.start.told}"
    )


def _note(recipe: Recipe, folder: Path) -> dict[str, object]:
    """The recipe and its stages as they were read, with what they inherit."""
    stages = {file: asdict(load_config(folder / file)) for file in recipe.stages}
    note = {"recipe": asdict(recipe), "stages": stages}
    told: dict[str, object] = json.loads(json.dumps(note, default=str))
    return told


def _check_workdir(recipe: Recipe, folder: Path, workdir: Path) -> None:
    """Refuse a working folder that another recipe, or this one before a change, has begun."""
    note = workdir / NOTE
    if not note.is_file():
        if workdir.is_dir() and any(workdir.iterdir()):
            raise D3Error(f"{workdir} holds other files: give another --workdir")
        return
    try:
        same = json.loads(note.read_text(encoding="utf-8")) == _note(recipe, folder)
    except ValueError:
        same = False
    if not same:
        raise D3Error(
            f"{workdir} was begun with another {RECIPE} or other stages: give another --workdir"
        )


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

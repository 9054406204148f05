"""Folders of rendered frames, made by all cores, the same for the same seed.

The layout is `plain_folder`'s; intrinsics.json adds to each camera the frame's `kind` of scene and
its pose `T_world_camera` (4 x 4, optical frame to the scene's, metres).
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from d3_ros.errors import D3Error
from d3_ros.training import render_scenes
from d3_ros.training.plain_folder import (
    camera_entry,
    encode_depth,
    encode_normals,
    new_folder,
    write_intrinsics,
)
from d3_ros.training.render import RayCaster, RenderedFrame
from d3_ros.training.render_photo import photograph
from d3_ros.types import CameraIntrinsics

VIEWS_PER_SCENE = 4
KINDS = ("rgb", "depth", "normals")


@dataclass(frozen=True)
class Photo:
    """A finished frame: `rgb` (H, W, 3) uint8, the exact geometry, and the camera it was for."""

    rgb: np.ndarray
    frame: RenderedFrame
    camera: CameraIntrinsics
    kind: str


@dataclass(frozen=True)
class _Job:
    output: Path
    seed: int
    scene: int
    views: int
    size: tuple[int, int]
    kinds: tuple[str, ...]


def random_camera(rng: np.random.Generator, width: int, height: int) -> CameraIntrinsics:
    """A pinhole camera with 45 to 85 degrees of horizontal view, nearly centred."""
    focal = width / 2 / np.tan(np.radians(rng.uniform(45, 85)) / 2)
    cx = (width - 1) / 2 + rng.normal(0, 0.01) * width
    cy = (height - 1) / 2 + rng.normal(0, 0.01) * height
    return CameraIntrinsics(width, height, float(focal), float(focal), float(cx), float(cy))


def render_scene(
    seed: int, scene: int, views: int, size: tuple[int, int], kinds: Sequence[str]
) -> Iterator[Photo]:
    """Up to `views` photographs (width, height) of scene number `scene` of the series `seed`."""
    rng = np.random.default_rng([seed, scene])
    weights = np.array([render_scenes.KINDS[k][1] for k in kinds])
    kind = str(rng.choice(list(kinds), p=weights / weights.sum()))
    world = render_scenes.build(kind, rng)
    caster = RayCaster(world)
    for _ in range(views):
        camera = random_camera(rng, *size)
        for _ in range(25):
            view = world.draw_view(rng)
            if caster.clear(view, camera):
                frame = caster.render(view, camera, rng)
                yield Photo(photograph(frame.rgb, rng), frame, camera, kind)
                break


def render_walk(seed: int, frames: int, size: tuple[int, int]) -> Iterator[Photo]:
    """A walk through one room of the series `seed`, one camera with steady settings."""
    rng = np.random.default_rng([seed, 0])
    world = render_scenes.build("room", rng)
    caster = RayCaster(world)
    width, height = size
    focal = width / 2 / np.tan(np.radians(62) / 2)
    camera = CameraIntrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    assert world.walk is not None  # rooms have one
    for i in range(frames):
        frame = caster.render(world.walk(i / max(frames - 1, 1)), camera, rng)
        lens = np.random.default_rng([seed, 1])  # the same camera settings in every frame
        yield Photo(photograph(frame.rgb, lens, strength=0.4), frame, camera, "room")


def _write(photo: Photo, output: Path, name: str) -> tuple[str, dict[str, object]]:
    rgb = output / "rgb" / f"{name}.jpg"
    cv2.imwrite(str(rgb), photo.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.imwrite(str(output / "depth" / f"{name}.png"), encode_depth(photo.frame.depth))
    normals = encode_normals(photo.frame.normals)
    cv2.imwrite(str(output / "normals" / f"{name}.png"), normals[..., ::-1])
    return name, {
        **camera_entry(photo.camera),
        "kind": photo.kind,
        "T_world_camera": photo.frame.T_world_camera.round(6).tolist(),
    }


def _run(job: _Job) -> list[tuple[str, dict[str, object]]]:
    cv2.setNumThreads(1)
    photos = render_scene(job.seed, job.scene, job.views, job.size, job.kinds)
    return [_write(p, job.output, f"{job.scene:06d}_{i}") for i, p in enumerate(photos)]


def render_folder(
    output: Path, *, frames: int, seed: int, size: tuple[int, int], kinds: Sequence[str], jobs: int
) -> int:
    """Render about `frames` single frames into `output`; returns how many there are.

    A scene gives up to `VIEWS_PER_SCENE` frames, fewer where no camera finds room.

    Raises:
        D3Error: an unknown kind, or a folder that already holds frames.
    """
    unknown = sorted(set(kinds) - set(render_scenes.KINDS))
    if unknown:
        known = ", ".join(render_scenes.KINDS)
        raise D3Error(f"unknown kind of scene {unknown[0]!r}: choose from {known}")
    views = [min(VIEWS_PER_SCENE, frames - i) for i in range(0, frames, VIEWS_PER_SCENE)]
    index: dict[str, dict[str, object]] = {}
    with (
        new_folder(output, kinds=KINDS, resume=False) as folder,
        multiprocessing.get_context("spawn").Pool(jobs) as pool,
        tqdm(total=frames, unit="frame", desc="render") as bar,
    ):
        todo = [_Job(folder, seed, i, n, size, tuple(kinds)) for i, n in enumerate(views)]
        for written in pool.imap_unordered(_run, todo):
            index.update(written)
            bar.update(len(written))
        write_intrinsics(folder, index)
    return len(index)


def render_walk_folder(output: Path, *, frames: int, seed: int, size: tuple[int, int]) -> int:
    """Render a walk of `frames` frames into `output`, in order; returns how many there are."""
    photos = tqdm(render_walk(seed, frames, size), total=frames, unit="frame", desc="render")
    with new_folder(output, kinds=KINDS, resume=False) as folder:
        index = dict(_write(photo, folder, f"{i:06d}") for i, photo in enumerate(photos))
        write_intrinsics(folder, index)
    return len(index)

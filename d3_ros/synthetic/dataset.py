"""Folders of rendered frames. All cores are used; the same seed gives the same frames.

The layout is `plain_folder`'s; intrinsics.json adds to each camera the frame's `kind` of scene and
its pose `T_world_camera` (4 x 4, optical frame to the scene's, metres).
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from d3_ros.data.plain_folder import (
    Split,
    camera_entry,
    encode_depth,
    encode_normals,
    new_folder,
    write_intrinsics,
    write_split,
)
from d3_ros.errors import D3Error
from d3_ros.imaging.image_file import write_image
from d3_ros.synthetic.mesh.kinds import KINDS, build
from d3_ros.synthetic.mesh.lidar import Sweep, take_sweep
from d3_ros.synthetic.mesh.photo import photograph
from d3_ros.synthetic.mesh.picture_textures import PictureTextures
from d3_ros.synthetic.mesh.ray_caster import RayCaster, RenderedFrame
from d3_ros.synthetic.mesh.rig import Rig
from d3_ros.synthetic.mesh.scene import Viewpoint
from d3_ros.types import CameraIntrinsics

VIEWS_PER_SCENE = 4
LAYERS = ("rgb", "depth", "normals")
LEAST_BRIGHT = 25  # of 255; a picture is too dark if its 90 % quantile is below
MOST_DARK = 3  # pictures that are too dark, before a view is given up
WALK_FIELD_DEG = 62.0  # horizontal field of view, if the user gives no camera
WALK_ATTEMPTS = 20


@dataclass(frozen=True)
class Photo:
    """A finished frame: `rgb` (H, W, 3) uint8, the exact geometry, and the camera.

    `sweep`: what the LiDAR of the rig measured at the same moment, if it has one.
    """

    rgb: np.ndarray
    frame: RenderedFrame
    camera: CameraIntrinsics
    kind: str
    sweep: Sweep | None = None


@dataclass(frozen=True)
class _Job:
    output: Path
    seed: int
    scene: int
    views: int
    rig: Rig
    kinds: tuple[str, ...]
    pictures: PictureTextures | None


def random_camera(rng: np.random.Generator, width: int, height: int) -> CameraIntrinsics:
    """A pinhole camera with 45 to 85 degrees of horizontal view, nearly centred."""
    focal = width / 2 / np.tan(np.radians(rng.uniform(45, 85)) / 2)
    cx = (width - 1) / 2 + rng.normal(0, 0.01) * width
    cy = (height - 1) / 2 + rng.normal(0, 0.01) * height
    return CameraIntrinsics(width, height, float(focal), float(focal), float(cx), float(cy))


def render_scene(
    seed: int,
    scene: int,
    views: int,
    rig: Rig,
    kinds: Sequence[str],
    pictures: PictureTextures | None = None,
) -> Iterator[Photo]:
    """Up to `views` photographs of scene number `scene` of the series `seed`.

    There are fewer if no place is found where a camera has room and light. `pictures` are the
    user's; half of the materials that they suit are taken from them.
    """
    rng = np.random.default_rng([seed, scene])
    weights = np.array([KINDS[k][1] for k in kinds])
    kind = str(rng.choice(list(kinds), p=weights / weights.sum()))
    world = build(kind, rng, pictures)
    caster = RayCaster(world)
    for _ in range(views):
        camera = rig.camera or random_camera(rng, *rig.size)
        dark = 0
        for _ in range(25):
            view = world.draw_view(rng)
            if rig.mounting is not None:
                view = rig.mounting.view(view, rng, world.floor_below(view.eye))
            if caster.clear(view, camera, given=rig.given):
                frame = caster.render(view, camera, rng)
                rgb = photograph(frame.rgb, rng)
                if np.percentile(rgb, 90) >= LEAST_BRIGHT:
                    yield Photo(rgb, frame, camera, kind)
                    break
                dark += 1  # no lamp reaches this place, and a black picture teaches nothing
                if dark == MOST_DARK:
                    break


class Walk:
    """A walk through one scene of the series `seed` with one camera, frame by frame.

    Every frame is a function of its number, so that several processes can share a walk.
    """

    def __init__(self, seed: int, frames: int, rig: Rig, kind: str) -> None:
        """Build the first scene of the series whose way is free.

        Raises:
            D3Error: this kind of scene has no walk, or none of the first scenes is free.
        """
        self._seed, self._frames, self._kind = seed, frames, kind
        self._lidar_rings = rig.lidar_rings
        width, height = rig.size
        focal = width / 2 / np.tan(np.radians(WALK_FIELD_DEG) / 2)
        self.camera = rig.camera or CameraIntrinsics(
            width, height, focal, focal, (width - 1) / 2, (height - 1) / 2
        )
        self._mounting = rig.mounting and rig.mounting.drawn(np.random.default_rng([seed, 0, 1]))
        for attempt in range(WALK_ATTEMPTS):
            world = build(kind, np.random.default_rng([seed, attempt]))
            if world.walk is None:
                raise D3Error(f"there is no walk through a {kind}: choose {_walkable()}")
            self._way, self._floor_below = world.walk, world.floor_below
            self._caster = RayCaster(world)
            views = [self._view(t) for t in np.linspace(0, 1, 5)]
            if all(self._caster.clear(view, self.camera, given=rig.given) for view in views):
                return
        raise D3Error(
            f"no {kind} of the series {seed} has a free way at this height: another --seed"
        )

    def photo(self, number: int) -> Photo:
        """Frame `number`."""
        rng = np.random.default_rng([self._seed, 0, 2, number])
        view = self._view(number / max(self._frames - 1, 1))
        frame = self._caster.render(view, self.camera, rng)
        lens = np.random.default_rng([self._seed, 1])  # the same camera settings in every frame
        sweep = None
        if self._lidar_rings:
            noise = np.random.default_rng([self._seed, 0, 4, number])
            pose = frame.T_world_camera
            sweep = take_sweep(self._caster, pose, self._lidar_rings, noise)
        rgb = photograph(frame.rgb, lens, strength=0.4)
        return Photo(rgb, frame, self.camera, self._kind, sweep)

    def _view(self, t: float) -> Viewpoint:
        view = self._way(t)
        if self._mounting is None:
            return view
        level = np.random.default_rng([self._seed, 0, 3])  # the same mount in every frame
        return self._mounting.view(view, level, self._floor_below(view.eye))


def render_walk(
    seed: int, frames: int, rig: Rig, kind: str = "room", jobs: int = 1
) -> Iterator[Photo]:
    """The frames of a walk in order, rendered by `jobs` processes.

    Raises:
        D3Error: as `Walk`.
    """
    walk = Walk(seed, frames, rig, kind)  # here, so that errors are raised before rendering begins
    if jobs == 1:
        return (walk.photo(number) for number in range(frames))
    return _shared_walk(seed, frames, rig, kind, jobs)


def _shared_walk(seed: int, frames: int, rig: Rig, kind: str, jobs: int) -> Iterator[Photo]:
    with _processes(jobs, _start_walk, seed, frames, rig, kind) as pool:
        yield from pool.map(_walk_photo, range(frames))


@contextmanager
def _processes(
    jobs: int, start: Callable[..., None], *arguments: object
) -> Iterator[ProcessPoolExecutor]:
    """Processes that render; `start(*arguments)` runs once in each.

    Raises:
        D3Error: one of them was killed.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, start, arguments)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise D3Error(
            "a rendering process was killed, perhaps for lack of memory: give fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start() -> None:
    """In each process: Ctrl-C is for the main process, which ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


_walk: list[Walk] = []  # in each process of a pool: its copy of the walk


def _start_walk(seed: int, frames: int, rig: Rig, kind: str) -> None:
    _start()
    _walk[:] = [Walk(seed, frames, rig, kind)]


def _walk_photo(number: int) -> Photo:
    return _walk[0].photo(number)


def _walkable() -> str:
    rng = np.random.default_rng(0)
    return ", ".join(k for k in KINDS if build(k, rng).walk)


def _write(photo: Photo, output: Path, name: str) -> tuple[str, dict[str, object]]:
    rgb = output / "rgb" / f"{name}.jpg"
    write_image(rgb, photo.rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    write_image(output / "depth" / f"{name}.png", encode_depth(photo.frame.depth))
    normals = encode_normals(photo.frame.normals)
    write_image(output / "normals" / f"{name}.png", normals[..., ::-1])
    return name, {
        **camera_entry(photo.camera),
        "kind": photo.kind,
        "T_world_camera": photo.frame.T_world_camera.round(6).tolist(),
    }


def _run(job: _Job) -> list[tuple[str, dict[str, object]]]:
    photos = render_scene(job.seed, job.scene, job.views, job.rig, job.kinds, job.pictures)
    return [_write(p, job.output, f"{job.scene:06d}_{i}") for i, p in enumerate(photos)]


def render_folder(
    output: Path,
    *,
    frames: int,
    seed: int,
    rig: Rig,
    kinds: Sequence[str],
    jobs: int,
    test_frames: int = 0,
    pictures: PictureTextures | None = None,
) -> int:
    """Render about `frames` single frames into `output`; returns how many there are.

    A scene gives up to `VIEWS_PER_SCENE` frames, fewer where no camera finds room or light.
    split.txt keeps the scenes of the last `test_frames` for testing; without these there is none.
    `pictures` are the user's, for half of the surfaces that they fit.

    Raises:
        D3Error: an unknown kind, a folder that exists, or no camera finds room anywhere.
    """
    check_kinds(kinds)
    views = [min(VIEWS_PER_SCENE, frames - i) for i in range(0, frames, VIEWS_PER_SCENE)]
    index: dict[str, dict[str, object]] = {}
    with (
        new_folder(output, kinds=LAYERS, resume=False) as folder,
        _processes(jobs, _start) as pool,
        tqdm(total=frames, unit="frame", desc="render") as bar,
    ):
        todo = [_Job(folder, seed, i, n, rig, tuple(kinds), pictures) for i, n in enumerate(views)]
        for done in as_completed([pool.submit(_run, job) for job in todo]):
            written = done.result()
            index.update(written)
            bar.update(len(written))
        if not index:
            raise D3Error(
                "the camera found room and light in none of the scenes: another height or tilt, or "
                "more frames"
            )
        write_intrinsics(folder, index)
        if test_frames:
            first = (frames - test_frames) // VIEWS_PER_SCENE  # the first scene to test on
            sides: dict[str, Split] = {
                name: "test" if int(name.split("_")[0]) >= first else "train"
                for name in sorted(index)
            }
            write_split(folder, sides)
    return len(index)


def render_walk_folder(
    output: Path, *, frames: int, seed: int, rig: Rig, kind: str, jobs: int
) -> int:
    """Render a walk of `frames` frames into `output`, in order; returns how many there are.

    Raises:
        D3Error: as `Walk`, or `output` exists.
    """
    check_kinds([kind])
    photos = render_walk(seed, frames, rig, kind, jobs)
    with new_folder(output, kinds=LAYERS, resume=False) as folder:
        bar = tqdm(photos, total=frames, unit="frame", desc="render")
        index = dict(_write(photo, folder, f"{i:06d}") for i, photo in enumerate(bar))
        write_intrinsics(folder, index)
    return len(index)


def check_kinds(kinds: Sequence[str]) -> None:
    """Check the names of kinds of scenes.

    Raises:
        D3Error: a name is unknown.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        known = ", ".join(KINDS)
        raise D3Error(f"unknown kind of scene {unknown[0]!r}: choose from {known}")

"""Which topics of a bag are the camera, its calibration and its depth sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from d3_ros.data.bag.file import CAMERA_INFO, COMPRESSED, IMAGE, POINTS, SCAN, Contents
from d3_ros.errors import DataError

SensorKind = Literal["depth", "points", "scan"]

KINDS: dict[SensorKind, tuple[str, ...]] = {
    "depth": (IMAGE, COMPRESSED),
    "points": (POINTS,),
    "scan": (SCAN,),
}
# Where the node's own inputs would be, beside the camera: those are taken without asking.
USUAL_SENSORS: tuple[tuple[SensorKind, str], ...] = (
    ("depth", "sensor_depth/image"),
    ("points", "sensor_depth/points"),
    ("scan", "sensor_depth/scan"),
)


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera and its sensor; `info` is empty where the bag has none."""

    image: str
    info: str
    sensor: str
    kind: SensorKind


def find_topics(
    contents: Contents,
    path: Path,
    *,
    image: str | None = None,
    info: str | None = None,
    sensor: str | None = None,
    kind: SensorKind | None = None,
) -> CameraTopics:
    """The topics of a camera: those asked for; others by their name, or if only one topic fits.

    Args:
        contents: of the bag.
        path: of the bag, for messages.
        image, info: topics, or None to find them.
        sensor, kind: both given, or both None to find them.

    Raises:
        DataError: a topic is missing, of another type, empty, or one of several; the message
            lists what there is.
    """
    image = find_image(contents, path, image)
    camera = camera_of(image)
    if info is None:
        usual = f"{camera}/camera_info"
        info = usual if contents.topics.get(usual, ("",))[0] == CAMERA_INFO else ""
    else:
        _check(contents, path, info, (CAMERA_INFO,), "calibration")
    if sensor is None or kind is None:
        kind, sensor = _find_sensor(contents, path, camera, image)
    else:
        _check(contents, path, sensor, KINDS[kind], kind)
    return CameraTopics(image, info, sensor, kind)


def find_image(contents: Contents, path: Path, asked: str | None) -> str:
    """The image topic that was asked for, or else the only colour camera of the bag."""
    topics = contents.topics
    images = sorted(name for name, (kind, _) in topics.items() if kind in (IMAGE, COMPRESSED))
    if asked is not None:
        if asked not in images:
            raise DataError(f"{path}: no image topic '{asked}' in it; it has {listed(images)}")
        return asked
    colour = [name for name in images if "depth" not in name.lower()]
    # A camera that was recorded both ways is one camera; the raw images cost no decoding.
    cameras = [
        name
        for name in colour
        if not (name.endswith("/compressed") and name.removesuffix("/compressed") in colour)
    ]
    if len(cameras) == 1:
        return cameras[0]
    if not cameras:
        raise DataError(f"{path}: no colour images in it; it has {listed(list(topics))}")
    raise DataError(f"{path}: which of {listed(cameras)} is the camera? Name its image topic")


def camera_of(image: str) -> str:
    """The namespace that an image topic shares with its camera_info."""
    return image.removesuffix("/compressed").rpartition("/")[0]


def listed(names: Sequence[str]) -> str:
    """Topic names for a message."""
    return ", ".join(names) or "no such topics"


def _find_sensor(contents: Contents, path: Path, camera: str, image: str) -> tuple[SensorKind, str]:
    topics = contents.topics
    for kind, name in USUAL_SENSORS:
        if topics.get(f"{camera}/{name}", ("",))[0] in KINDS[kind]:
            return kind, f"{camera}/{name}"
    found: list[tuple[SensorKind, str]] = [
        (kind, name)
        for name, (msgtype, _) in sorted(topics.items())
        for kind, types in KINDS.items()
        if msgtype in types and name != image and (kind != "depth" or "depth" in name.lower())
    ]
    if len(found) == 1:
        return found[0]
    names = listed([f"{name} ({kind})" for kind, name in found])
    if found:
        raise DataError(f"{path}: which of {names} is the depth sensor? Name it")
    raise DataError(
        f"{path}: no depth images, point clouds or laser scans in it; it has {listed(list(topics))}"
    )


def _check(contents: Contents, path: Path, topic: str, types: tuple[str, ...], what: str) -> None:
    kind, count = contents.topics.get(topic, ("", 0))
    if kind not in types:
        fitting = sorted(n for n, (other, _) in contents.topics.items() if other in types)
        here = f"'{topic}' is {kind}" if kind else f"no topic '{topic}' in it"
        raise DataError(
            f"{path}: {here}; topics that can be {what} are {listed(fitting)}; "
            f"all: {listed(sorted(contents.topics))}"
        )
    if count == 0:
        raise DataError(f"{path}: no messages on '{topic}'")

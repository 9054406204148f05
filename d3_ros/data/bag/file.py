"""A bag's messages in time: what topics there are, and which messages belong to one image.

Read by `rosbags`: no ROS process and no ROS installation is needed. Messages come with the fields
of ROS 2's own, from ROS 1 bags too, so the functions of `d3_ros.messages` read them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from d3_ros.data.bag.cut_mcap import CutMcap, is_cut
from d3_ros.errors import DataError, one_line

Message: TypeAlias = Any  # rosbags makes its message classes at run time

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
POINTS, SCAN = "sensor_msgs/msg/PointCloud2", "sensor_msgs/msg/LaserScan"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
ROS1_FIELDS = {"D": "d", "K": "k", "R": "r", "P": "p"}  # of CameraInfo
METADATA, STORAGE_SUFFIXES = "metadata.yaml", frozenset({".mcap", ".db3"})
# Messages are read in the order of their reception. A measurement may be received up to this much
# later than the image that it belongs to.
LATE_S = 0.5
LATE_NS = round(LATE_S * 1e9)
# Measurements are kept at most this long after their reception, whatever their stamps say: the
# sensor's clock may be ahead of the camera's, or behind.
KEPT_NS = 10_000_000_000


@dataclass(frozen=True)
class Contents:
    """What a bag holds.

    topics: by name, the type and the number of messages.
    duration_s: from the first message to the last, seconds.
    cut: names of its files that were cut off; what is whole of them is read.
    """

    topics: dict[str, tuple[str, int]]
    duration_s: float
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class Moment:
    """One image and what was measured with it, not decoded yet.

    `info`: the latest camera_info, or None. `others`: by topic, the message whose stamp is nearest
    to the image's, as far as one is within its tolerance.
    """

    stamp_ns: int
    image: Message
    info: Message | None
    others: dict[str, Message]


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag, by names alone.

    That is an .mcap, .db3 or .bag file, or a folder with a metadata.yaml or an .mcap or .db3 file.
    """
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_storage_files(path))
    return path.suffix in STORAGE_SUFFIXES or path.suffix == ".bag"


def read_contents(path: Path) -> Contents:
    """The topics of a bag.

    Raises:
        DataError: not a readable bag.
    """
    with _opened(path) as reader:
        topics = {name: (info.msgtype or "", info.msgcount) for name, info in reader.topics.items()}
        duration_s = max(reader.duration, 0) / 1e9 if topics else 0.0  # no message: below 0
    files = _storage_files(path) if path.is_dir() else [path]
    cut = tuple(file.name for file in files if file.suffix == ".mcap" and is_cut(file))
    if cut and not topics:
        raise DataError(
            f"{path}: not a readable ROS bag ({cut[0]} was cut off, nothing is whole of it): "
            "record it again or copy it anew"
        )
    return Contents(topics, duration_s, cut)


def read_messages(path: Path, topics: Sequence[str]) -> Iterator[tuple[str, int, Message]]:
    """(topic, time of reception in ns, message) of some topics, in the order of reception.

    Raises:
        DataError: the bag cannot be read, now or from somewhere in its middle.
    """
    with _opened(path) as reader:
        connections: list[Connection] = [c for c in reader.connections if c.topic in topics]
        # Without a connection `messages` would read all of them.
        messages = reader.messages(connections=connections) if connections else iter(())
        while True:
            try:
                connection, time_ns, raw = next(messages)
                message = _as_ros2(reader.deserialize(raw, connection.msgtype))
            except StopIteration:
                return
            except Exception as error:  # rosbags lets through what sqlite, zstd and struct raise
                raise _unreadable(path, error) from error
            yield connection.topic, time_ns, message


def read_moments(
    path: Path, image: str, info: str, tolerances_ns: Mapping[str, int]
) -> Iterator[Moment]:
    """Every image with the messages of other topics that belong to it.

    Args:
        path: the bag.
        image: topic of the images.
        info: topic of their camera_info; empty: none.
        tolerances_ns: by topic, how far a message's stamp may be from the image's; empty topics
            are left out.

    Raises:
        DataError: as `read_messages`.
    """
    wanted = [topic for topic in (image, info, *tolerances_ns) if topic]
    waiting: deque[tuple[int, Message]] = deque()
    # Stamp, time of reception and message.
    found: dict[str, deque[tuple[int, int, Message]]] = {topic: deque() for topic in tolerances_ns}
    latest_info = None

    def moment(message: Message) -> Moment:
        stamp = stamp_ns(message)
        nearest = {
            topic: _nearest(messages, stamp, tolerances_ns[topic])
            for topic, messages in found.items()
        }
        others = {topic: other for topic, other in nearest.items() if other is not None}
        return Moment(stamp, message, latest_info, others)

    for topic, time_ns, message in read_messages(path, wanted):
        while waiting and time_ns - waiting[0][0] > LATE_NS:
            yield moment(waiting.popleft()[1])
        if topic == image:
            waiting.append((time_ns, message))
        elif topic == info:
            latest_info = message
        else:
            kept = found[topic]
            kept.append((stamp_ns(message), time_ns, message))
            oldest = stamp_ns(waiting[0][1]) if waiting else stamp_ns(message)
            while kept and (kept[0][0] < oldest - 2 * LATE_NS or kept[0][1] < time_ns - KEPT_NS):
                kept.popleft()
    for _, message in waiting:
        yield moment(message)


def stamp_ns(message: Message) -> int:
    """The time in a message's header, nanoseconds."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    """An open `AnyReader`; if it cannot be opened, a DataError says why in one line."""
    if path.exists() and not is_bag(path):
        raise DataError(
            f"{path} is no ROS bag: that is a folder with metadata.yaml, or with .mcap or .db3 "
            "files in it, or a file .mcap, .db3 or .bag"
        )
    try:
        reader = _open(path)
    except Exception as error:  # rosbags lets through what sqlite, YAML and struct raise
        raise _unreadable(path, error) from error
    try:
        yield reader
    finally:
        reader.close()


def _open(path: Path) -> AnyReader:
    """The bag, by its metadata.yaml; or its files alone where that is missing or of no use."""
    files = _storage_files(path) if path.is_dir() else [path]
    readable = [CutMcap(f) if f.suffix == ".mcap" and is_cut(f) else f for f in files]
    if path.is_dir() and (path / METADATA).is_file() and readable == files:
        try:
            return _reader([path])
        except Exception:
            if not files:
                raise
    return _reader(readable or [path])


def _reader(paths: Sequence[Any]) -> AnyReader:
    # Bags of Humble and older carry no message definitions.
    reader = AnyReader(paths, default_typestore=_ros2_types())
    reader.open()
    try:
        _check_definitions(reader)
    except DataError:
        reader.close()
        raise
    return reader


def _check_definitions(reader: AnyReader) -> None:
    """Refuse a bag in which a message type that is read here is defined otherwise than in ROS."""
    known, found = _ros2_types().fielddefs, reader.typestore.fielddefs
    waiting, checked = [IMAGE, COMPRESSED, CAMERA_INFO, POINTS, SCAN, TRANSFORMS], set()
    while waiting:
        name = waiting.pop()
        if name in checked or name not in found:
            continue
        checked.add(name)
        own = {ROS1_FIELDS.get(field, field): kind for field, kind in found[name][1]}
        for field, kind in known[name][1]:
            if own.get(field) != kind:
                raise DataError(f"its definition of {name} has another '{field}' than ROS")
            waiting += [part for part in _flat(kind) if part in known]


def _flat(kind: Any) -> Iterator[Any]:
    """What a nested tuple holds."""
    if isinstance(kind, tuple):
        for part in kind:
            yield from _flat(part)
    elif isinstance(kind, str):
        yield kind


def _storage_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in STORAGE_SUFFIXES)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable ROS bag ({one_line(error)}); {_remedy(path)}")


def _remedy(path: Path) -> str:
    """What mends the file of a bag that is at fault."""
    for file in _storage_files(path) if path.is_dir() else [path]:
        if file.suffix == ".mcap" and is_cut(file):
            return f"{file.name} was cut off: save what is in it with 'mcap recover {file} -o NEW'"
        if file.suffix == ".db3":
            check = f"sqlite3 {file} 'PRAGMA integrity_check'"
            return f"check {file.name} with \"{check}\" and save what is in it with '.recover'"
    if path.suffix == ".bag":
        return f"if it was cut off, mend its index with 'rosbag reindex {path}'"
    return "record it again or copy it anew"


def _as_ros2(message: Message) -> Message:
    """A message of a ROS 1 bag with the fields of ROS 2; others as they are.

    Of the messages that are read here only CameraInfo changed its fields: D, K, R and P became d,
    k, r and p.
    """
    if not hasattr(message, "K"):
        return message
    return _ros2_types().types[CAMERA_INFO](
        header=message.header,
        height=message.height,
        width=message.width,
        distortion_model=message.distortion_model,
        d=message.D,
        k=message.K,
        r=message.R,
        p=message.P,
        binning_x=message.binning_x,
        binning_y=message.binning_y,
        roi=message.roi,
    )


@lru_cache(maxsize=1)
def _ros2_types() -> Typestore:
    return get_typestore(Stores.ROS2_HUMBLE)


def _nearest(
    items: deque[tuple[int, int, Message]], stamp: int, tolerance_ns: int
) -> Message | None:
    """The message whose stamp is nearest, if it is within the tolerance."""
    if not items:
        return None
    when, _, message = min(items, key=lambda item: abs(item[0] - stamp))
    return message if abs(when - stamp) <= tolerance_ns else None

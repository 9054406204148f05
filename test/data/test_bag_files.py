"""Bags as they are found: of ROS 1, without metadata, cut off. Read, or refused with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import bag_messages as bags
from rosbags.rosbag2 import StoragePlugin

from d3_ros.__main__ import main
from d3_ros.data.bag.camera import BagCamera, BagCameraOptions
from d3_ros.data.bag.file import is_bag, read_contents, read_messages
from d3_ros.data.played_frame import SourceOptions
from d3_ros.data.sources import open_source
from d3_ros.errors import DataError
from d3_ros.types import CameraIntrinsics

SECOND, COUNT = 1_000_000_000, 12
START = 1_700_000_000 * SECOND
DEPTH = np.full((6, 8), 2000, np.uint16)
RGB = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)


def ros2_bag(path: Path, plugin: StoragePlugin, image: np.ndarray = RGB) -> Path:
    messages: list[tuple[str, int, Any]] = []
    for stamp in range(START, START + COUNT * SECOND, SECOND):
        messages += [
            ("/cam/camera_info", stamp, bags.camera_info(stamp)),
            ("/cam/image", stamp, bags.image(stamp, image, "rgb8")),
            ("/cam/sensor_depth/image", stamp, bags.image(stamp, DEPTH, "16UC1")),
        ]
    return bags.write_bag(path, messages, plugin)


def test_a_ros_1_bag_is_read_by_all(tmp_path: Path) -> None:
    path = bags.ros1_bag(tmp_path / "walk.bag", COUNT, RGB, DEPTH)
    lens = CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.5, "plumb_bob", (0.1, 0.01, 0.0, 0.0))
    moments = list(BagCamera(BagCameraOptions(path)))
    assert len(moments) == COUNT
    assert moments[3].intrinsics == lens
    assert np.array_equal(moments[3].rgb, RGB)
    assert (moments[3].depth == 2.0).all()
    frames = list(open_source(SourceOptions(path)))
    assert len(frames) == COUNT
    assert frames[0].intrinsics == lens
    output = tmp_path / "out"
    arguments = ["bag", "extract", str(path), "--output", str(output), "--min-motion", "0"]
    assert main([*arguments, "--min-points", "1"]) == 0
    assert len(list((output / "rgb").iterdir())) == COUNT


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("fault", ["none", "missing", "no storage", "no yaml", "another file"])
def test_metadata_of_no_use_is_done_without(
    tmp_path: Path, plugin: StoragePlugin, fault: str
) -> None:
    path = ros2_bag(tmp_path / "bag", plugin)
    metadata = path / "metadata.yaml"
    text = metadata.read_text()
    name = plugin.name.lower()
    if fault == "missing":
        metadata.unlink()
    elif fault == "no storage":
        assert f"storage_identifier: {name}" in text
        metadata.write_text(text.replace(f"storage_identifier: {name}", 'storage_identifier: ""'))
    elif fault == "no yaml":
        metadata.write_text("{[")
    elif fault == "another file":
        (data,) = (file for file in path.iterdir() if file != metadata)
        data.rename(data.with_stem("renamed"))
    assert is_bag(path)
    contents = read_contents(path)
    assert contents.topics["/cam/image"] == ("sensor_msgs/msg/Image", COUNT)
    assert contents.duration_s == pytest.approx(COUNT - 1)
    assert len(list(open_source(SourceOptions(path)))) == COUNT


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_of_a_cut_mcap_is_read_what_is_whole(
    tmp_path: Path, share: float, whole_folder: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    # Chunks close at 1 MiB: an image each.
    large = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    path = ros2_bag(tmp_path / "bag", StoragePlugin.MCAP, large)
    file = path / "bag.mcap"
    file.write_bytes(file.read_bytes()[: round(share * file.stat().st_size)])
    path = path if whole_folder else file
    contents = read_contents(path)
    assert contents.cut == ("bag.mcap",)
    count = contents.topics["/cam/image"][1]
    assert round(share * COUNT) - 2 <= count <= round(share * COUNT)
    read = list(read_messages(path, ["/cam/image"]))
    assert len(read) == count
    assert np.array_equal(read[-1][2].data, large.ravel())
    assert main(["bag", "info", str(path)]) == 0
    assert "bag.mcap was cut off" in capsys.readouterr().out


def test_what_cannot_be_read_names_its_remedy(tmp_path: Path) -> None:
    sqlite = ros2_bag(tmp_path / "sqlite", StoragePlugin.SQLITE3)
    data = sqlite / "sqlite.db3"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(DataError, match=r"integrity_check.*\.recover"):
        list(read_messages(sqlite, ["/cam/image"]))
    ros1 = bags.ros1_bag(tmp_path / "a.bag", COUNT)
    ros1.write_bytes(ros1.read_bytes()[:-3000])
    with pytest.raises(DataError, match=f"'rosbag reindex {ros1}'"):
        list(read_messages(ros1, ["/cam/image"]))
    empty = tmp_path / "empty.mcap"
    empty.touch()
    with pytest.raises(DataError, match="record it again or copy it anew"):
        read_contents(empty)
    assert not is_bag(tmp_path / "none")
    for no_bag in (tmp_path / "folder", tmp_path / "notes.txt"):
        if no_bag.suffix:
            no_bag.touch()
        else:
            no_bag.mkdir()
        with pytest.raises(DataError, match=r"is no ROS bag: that is a folder with metadata\.yaml"):
            read_contents(no_bag)


@pytest.mark.parametrize(
    ("field", "other", "message"),
    [
        (b"uint32 binning_y", b"uint32 binning_z", "CameraInfo has another 'binning_y'"),
        (b"", b"", ""),
        (b"uint32 x_offset", b"uint32 X_offset", "RegionOfInterest has another 'x_offset'"),
        (b"int32 sec", b"uint8 sec", "not a readable ROS bag"),
    ],
)
def test_definitions_that_are_not_ros_s_are_refused(
    tmp_path: Path, field: bytes, other: bytes, message: str
) -> None:
    """A bag brings the definitions of its messages with it; fuzzing changed them."""
    path = ros2_bag(tmp_path / "bag", StoragePlugin.MCAP)
    file = path / "bag.mcap"
    data = file.read_bytes()
    if field:
        file.write_bytes(data.replace(field, other.rjust(len(field))))
    if not message:
        assert read_contents(path).topics
        return
    with pytest.raises(DataError, match=message):
        read_contents(path)

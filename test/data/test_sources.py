"""Where the demo's frames come from: folders, videos and bags, and what is said when they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import pictures
from helpers.bag_messages import camera_info, compressed, image, write_bag
from helpers.paths import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin

from d3_ros.data.held_out_points import draw_points, split_depth, without_pixels
from d3_ros.data.played_frame import PlayedFrame, SourceOptions
from d3_ros.data.sources import open_source
from d3_ros.errors import D3Error, DataError
from d3_ros.types import CameraIntrinsics

NAN = np.float32(np.nan)


def make_folder(folder: Path, stems: list[str], depth_stems: list[str] | None = None) -> Path:
    """Pictures of 8 x 6 whose red is their place; depth 1000 mm + column, and 0 in column 0."""
    (folder / "rgb").mkdir(parents=True)
    for place, stem in enumerate(stems):
        bgr = np.zeros((6, 8, 3), np.uint8)
        bgr[..., 2] = 10 * place
        assert cv2.imwrite(str(folder / "rgb" / f"{stem}.png"), bgr)
    if depth_stems is not None:
        (folder / "depth").mkdir()
        depth = np.tile(np.arange(8, dtype=np.uint16) + 1000, (6, 1))
        depth[:, 0] = 0
        for stem in depth_stems:
            assert cv2.imwrite(str(folder / "depth" / f"{stem}.png"), depth)
    return folder


def frames_of(path: Path, **options: Any) -> list[PlayedFrame]:
    return list(open_source(SourceOptions(path, **options)))


# ---------------------------------------------------------------------------- what the node gets


@settings(max_examples=50, deadline=None)
@given(
    measured=st.lists(st.booleans(), min_size=1, max_size=60),
    points=st.integers(0, 100),
    seed=st.integers(0, 5),
)
def test_split_gives_each_measured_pixel_to_one_side(
    measured: list[bool], points: int, seed: int
) -> None:
    depth = np.where([measured], np.arange(1, len(measured) + 1), np.nan).astype(np.float32)
    given_ = draw_points(depth, points, seed=seed)
    held_out = without_pixels(depth, given_)
    assert np.isfinite(given_).sum() == min(points, sum(measured) // 2)
    np.testing.assert_array_equal(np.where(np.isfinite(given_), given_, held_out), depth)
    assert not (np.isfinite(given_) & np.isfinite(held_out)).any()
    again = draw_points(depth, points, seed=seed)
    np.testing.assert_array_equal(given_, again)


def test_truth_excludes_what_was_given() -> None:
    truth = np.array([[1.0, 2.0, np.nan]], np.float32)
    given_ = np.array([[np.nan, 2.1, 3.0]], np.float32)
    np.testing.assert_array_equal(without_pixels(truth, given_), [[1.0, NAN, NAN]])


def test_no_points_are_no_sensor_and_a_truth_of_its_own_leaves_all_of_it() -> None:
    sensor = np.array([[1.0, 2.0, np.nan, 4.0]], np.float32)
    truth = np.array([[1.5, 2.5, 3.5, 4.5]], np.float32)
    given_, held_out = split_depth(sensor, None, 0, seed=0)
    assert given_ is None
    np.testing.assert_array_equal(held_out, sensor)
    given_, held_out = split_depth(sensor, truth, None, seed=0)
    np.testing.assert_array_equal(given_, sensor)
    np.testing.assert_array_equal(held_out, [[NAN, NAN, 3.5, NAN]])
    given_, held_out = split_depth(sensor, truth, 1, seed=0)
    assert given_ is not None
    assert held_out is not None
    assert np.isfinite(given_).sum() == 1
    assert np.isfinite(held_out).sum() == 3
    assert split_depth(None, truth, 5, seed=0) == (None, truth)


# ---------------------------------------------------------------------------------------- folder


def test_folder_of_pictures_counts_as_people_do(tmp_path: Path) -> None:
    frames = frames_of(make_folder(tmp_path / "in", ["9", "10", "2"]))
    assert [frame.name for frame in frames] == ["2", "9", "10"]
    assert [frame.index for frame in frames] == [0, 1, 2]
    first = frames[0]
    assert first.rgb.shape == (6, 8, 3)
    assert first.rgb.dtype == np.uint8
    assert first.rgb[0, 0].tolist() == [20, 0, 0], "the third picture written, red first"
    assert np.isnan(first.stamp)
    assert first.intrinsics is None
    assert first.sensor is None
    assert first.truth is None


def test_folder_with_depth_is_split(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", ["a", "b"], ["a", "b"])
    source = open_source(SourceOptions(folder, intrinsics=(5.0, 6.0, 3.5, 2.5), points=10, seed=3))
    assert len(source) == 2
    assert source.rate_hz is None
    assert source.warnings == ()
    first, second = source
    assert first.intrinsics == CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.5)
    assert first.sensor is not None
    assert first.truth is not None
    assert np.isfinite(first.sensor).sum() == 10
    assert np.isfinite(first.truth).sum() == 6 * 7 - 10, "column 0 was not measured"
    both = np.where(np.isfinite(first.sensor), first.sensor, first.truth)
    np.testing.assert_allclose(both[0], [np.nan, *(1.0 + np.arange(1, 8) / 1000)], atol=1e-6)
    assert second.sensor is not None
    assert not np.array_equal(np.isfinite(first.sensor), np.isfinite(second.sensor)), (
        "another frame, other pixels"
    )
    again = next(iter(source))
    np.testing.assert_array_equal(again.sensor, first.sensor)


def test_files_without_a_partner_are_named_and_left_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "in", ["a", "b", "c"], ["b", "x"])
    source = open_source(SourceOptions(folder))
    assert [frame.name for frame in source] == ["b"]
    assert len(source) == 1
    camera, rgb, depth = source.warnings
    assert "no --intrinsics" in camera
    assert "2 of 3" in rgb
    assert "a, c" in rgb
    assert "1 file without a picture" in depth
    assert "depth/x.png" in depth


def broken_folder(tmp_path: Path, fault: str) -> Path:
    """A folder with one fault; the name of what is at fault stands in the error."""
    folder = tmp_path / "in"
    if fault == "missing":
        return folder
    if fault == "no rgb":
        (folder / "images").mkdir(parents=True)
        return folder
    if fault == "no pictures":
        (folder / "rgb").mkdir(parents=True)
        (folder / "rgb" / "notes.txt").write_text("x")
        return folder
    if fault == "no partners":
        return make_folder(folder, ["a"], ["b"])
    make_folder(folder, ["a"], ["a"])
    depth = folder / "depth" / "a.png"
    if fault == "unreadable picture":
        (folder / "rgb" / "a.png").write_bytes(b"not a picture")
    elif fault == "unreadable depth":
        depth.write_bytes(depth.read_bytes()[:40])
    elif fault == "8 bit depth":
        cv2.imwrite(str(depth), np.ones((6, 8), np.uint8))
    elif fault == "other size":
        cv2.imwrite(str(depth), np.ones((12, 16), np.uint16))
    return folder


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "no such file or folder"),
        ("no rgb", "put pictures (png, jpg, bmp, tif, webp) into rgb/"),
        ("no pictures", "no pictures in it"),
        ("no partners", "no file in depth/ has the name of one in rgb/"),
        ("unreadable picture", "rgb/a.png is no picture"),
        ("unreadable depth", "depth/a.png is damaged or cut short"),
        ("8 bit depth", "one channel of uint16 millimetres"),
        ("other size", "16 x 12 pixels, but its frame is 8 x 6"),
    ],
)
def test_faults_of_a_folder_are_one_line(tmp_path: Path, fault: str, says: str) -> None:
    folder = broken_folder(tmp_path, fault)
    with pytest.raises(DataError) as raised:
        frames_of(folder)
    assert says in str(raised.value)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


# ----------------------------------------------------------------------------------------- video


def test_a_video_of_unknown_length_is_played_to_its_end(tmp_path: Path) -> None:
    """A stream of JPEGs has no header that could say how many there are."""
    path = tmp_path / "drive.mjpeg"
    levels = range(0, 240, 20)
    path.write_bytes(
        b"".join(pictures.jpeg(np.full((48, 64, 3), level, np.uint8)) for level in levels)
    )
    source = open_source(SourceOptions(path))
    frames = list(source)
    assert len(source) == len(frames) == 12
    assert [round(float(frame.rgb.mean()), -1) for frame in frames] == list(levels)


def test_video(tmp_path: Path) -> None:
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12.5, (64, 48))
    assert writer.isOpened()
    for level in (40, 120, 200):
        bgr = np.zeros((48, 64, 3), np.uint8)
        bgr[..., 2] = level  # red
        writer.write(bgr)
    writer.release()
    source = open_source(SourceOptions(path, intrinsics=(60.0, 60.0, 31.5, 23.5)))
    assert len(source) == 3
    assert source.rate_hz == pytest.approx(12.5)
    frames = list(source)
    assert [frame.stamp for frame in frames] == pytest.approx([0.0, 0.08, 0.16])
    means = np.array([frame.rgb.mean(axis=(0, 1)) for frame in frames])
    np.testing.assert_allclose(means[:, 0], [40, 120, 200], atol=4)
    np.testing.assert_allclose(means[:, 1:], 0, atol=4)
    assert frames[0].intrinsics == CameraIntrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    assert frames[0].sensor is None


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "drive.mp4"
    path.write_bytes(b"\0" * 2000)
    with pytest.raises(DataError, match=r"drive\.mp4: neither a bag nor a video"):
        open_source(SourceOptions(path))


# ------------------------------------------------------------------------------------------- bag


RED = np.full((6, 8, 3), (0, 0, 200), np.uint8)  # BGR
MILLIMETRES = np.tile(np.arange(8, dtype=np.uint16) * 500, (6, 1))
START, PERIOD = 1_700_000_000_000_000_000, 100_000_000


def walk(count: int, *, raw: bool, truth: bool) -> list[tuple[str, int, Any]]:
    """`count` frames at 10 Hz: sensor depth 5 ms after its image, a truth with its very stamp."""
    messages: list[tuple[str, int, Any]] = []
    for i in range(count):
        stamp = START + i * PERIOD
        rgb_or_png = (
            image(stamp, RED, "bgr8") if raw else compressed(stamp, pictures.png(RED), "png")
        )
        name = "/camera/image" if raw else "/camera/image/compressed"
        messages.append((name, stamp + 1_000_000, rgb_or_png))
        messages.append(("/camera/camera_info", stamp + 2_000_000, camera_info(stamp)))
        sensor = image(stamp + 5_000_000, MILLIMETRES, "16UC1")
        messages.append(("/camera/sensor_depth/image", stamp + 30_000_000, sensor))
        if truth:
            metres = (MILLIMETRES / 1000 + i).astype(np.float32)
            depth = image(stamp, metres, "32FC1")
            messages.append(("/camera/truth/depth", stamp + 40_000_000, depth))
    return messages


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("raw", [True, False])
def test_bag(tmp_path: Path, plugin: StoragePlugin, raw: bool) -> None:
    path = write_bag(tmp_path / "bag", walk(4, raw=raw, truth=True), plugin)
    source = open_source(SourceOptions(path))
    assert len(source) == 4
    assert source.rate_hz == pytest.approx(10.0, rel=0.2)
    assert source.warnings == ()
    frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.stamp - START / 1e9 for frame in frames] == pytest.approx(
        [0.0, 0.1, 0.2, 0.3], abs=1e-6
    )
    for i, frame in enumerate(frames):
        assert (frame.rgb == (200, 0, 0)).all()
        assert frame.intrinsics == CameraIntrinsics(8, 6, 5.0, 6.0, 3.5, 2.5)
        assert frame.sensor is not None
        assert frame.truth is not None
        np.testing.assert_allclose(frame.sensor[0], [NAN, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])
        # What was given is not scored: only the first column is left, and there the truth is i.
        expected = np.full(8, NAN)
        expected[0] = i if i > 0 else NAN  # 0 m is no depth
        np.testing.assert_array_equal(frame.truth[0], expected)


def test_bag_without_truth_splits_its_sensor_depth(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", walk(2, raw=True, truth=False), StoragePlugin.SQLITE3)
    first = frames_of(path)[0]
    assert first.sensor is not None
    assert first.truth is not None
    assert np.isfinite(first.sensor).sum() == 21, "half of 6 x 7"
    assert np.isfinite(first.truth).sum() == 21
    assert np.isfinite(frames_of(path, points=4)[0].sensor).sum() == 4


def test_bag_matches_depth_by_time(tmp_path: Path) -> None:
    """Sensor depth 30 ms off and a truth 1 ns off belong to no image."""
    messages = [
        ("/camera/image", START, image(START, RED, "bgr8")),
        ("/camera/sensor_depth/image", START, image(START + 30_000_000, MILLIMETRES, "16UC1")),
        ("/camera/truth/depth", START, image(START + 1, MILLIMETRES, "16UC1")),
    ]
    source = open_source(SourceOptions(write_bag(tmp_path / "bag", messages, StoragePlugin.MCAP)))
    (frame,) = source
    assert frame.sensor is None
    assert frame.truth is None
    assert frame.intrinsics is None
    assert any("no camera_info" in warning for warning in source.warnings)


def test_bag_topics_may_be_named(tmp_path: Path) -> None:
    messages = [
        ("/left/image", START, image(START, RED, "bgr8")),
        ("/right/image", START, image(START, RED[..., ::-1].copy(), "bgr8")),
        ("/tof/depth", START, image(START, MILLIMETRES, "16UC1")),
    ]
    path = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    with pytest.raises(DataError, match="which of /left/image, /right/image is the camera"):
        open_source(SourceOptions(path))
    (frame,) = frames_of(path, image_topic="/right/image", sensor_topic="/tof/depth", points=5)
    assert (frame.rgb == (0, 0, 200)).all()
    assert frame.sensor is not None
    assert np.isfinite(frame.sensor).sum() == 5
    source = open_source(SourceOptions(path, image_topic="/left/image"))
    assert any("is it /tof/depth? Say --sensor-topic" in line for line in source.warnings)
    with pytest.raises(DataError, match="no image topic '/front' in it; it has /left/image"):
        open_source(SourceOptions(path, image_topic="/front"))
    with pytest.raises(DataError, match="no depth images on '/tof' in it"):
        open_source(SourceOptions(path, image_topic="/left/image", sensor_topic="/tof"))


def test_bag_with_depth_of_another_size(tmp_path: Path) -> None:
    messages = [
        ("/camera/image", START, image(START, RED, "bgr8")),
        ("/camera/sensor_depth/image", START, image(START, MILLIMETRES[:, :4].copy(), "16UC1")),
    ]
    path = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    with pytest.raises(DataError, match="is 4 x 6, but /camera/image is 8 x 6"):
        frames_of(path)


@pytest.mark.parametrize(
    ("plugin", "fault"),
    [
        (StoragePlugin.SQLITE3, "cut"),
        (StoragePlugin.SQLITE3, "no file"),
        (StoragePlugin.MCAP, "cut"),
    ],
)
def test_a_damaged_bag_is_one_line(tmp_path: Path, plugin: StoragePlugin, fault: str) -> None:
    path = write_bag(tmp_path / "bag", walk(20, raw=True, truth=True), plugin)
    data = next(file for file in path.iterdir() if file.suffix in (".db3", ".mcap"))
    if fault == "cut":
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 3])
    else:
        data.unlink()
    with pytest.raises(DataError, match="not a readable ROS bag") as raised:
        frames_of(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_bag_without_images(tmp_path: Path) -> None:
    path = write_bag(
        tmp_path / "bag", [("/info", START, camera_info(START))], StoragePlugin.SQLITE3
    )
    with pytest.raises(DataError, match="no colour images in it; it has /info"):
        open_source(SourceOptions(path))


def test_wrong_encoding_in_a_bag_names_the_topic(tmp_path: Path) -> None:
    messages = [("/camera/image", START, image(START, MILLIMETRES, "16UC1"))]
    path = write_bag(tmp_path / "bag", messages, StoragePlugin.SQLITE3)
    with pytest.raises(D3Error, match="'/camera/image' has encoding 16UC1"):
        frames_of(path)


def test_the_sample_can_be_played_and_scored() -> None:
    source = open_source(SourceOptions(ROOT / "test" / "data" / "sample_walk"))
    frames = list(source)
    assert len(frames) == len(source) >= 20
    for frame in (frames[0], frames[-1]):
        assert frame.intrinsics is not None
        assert frame.sensor is not None
        assert frame.truth is not None
        assert frame.rgb.shape[:2] == frame.sensor.shape == frame.truth.shape
        assert 100 < np.isfinite(frame.sensor).sum() < 5000
        assert np.isfinite(frame.truth).mean() > 0.5
        assert not (np.isfinite(frame.sensor) & np.isfinite(frame.truth)).any()

"""`bag check-calibration` on a bag and on folders: verdict, exit status, picture, faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import bag_messages as bags
from helpers.paths import ROOT
from helpers.room_lidar import CAMERA, T_CAMERA_LIDAR, room_frames
from rosbags.rosbag2 import StoragePlugin

from d3_ros.__main__ import main
from d3_ros.data.calibration_frames import folder_frames
from d3_ros.evaluation.extrinsics import check_recording
from d3_ros.geometry.extrinsics.edge_match import small_motion
from d3_ros.geometry.rigid import quaternion_of
from d3_ros.imaging.image_file import read_rgb

KITTI = ROOT.parent / "shared" / "data" / "kitti"
START = 1_700_000_000_000_000_000


def info(stamp: int) -> Any:
    message = bags.camera_info(stamp, CAMERA.width, CAMERA.height)
    message.k[:] = CAMERA.matrix.ravel()
    return message


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images with the LiDAR's cloud and /tf_static, and sparse depth beside the camera."""
    pose = (T_CAMERA_LIDAR[:3, 3], quaternion_of(T_CAMERA_LIDAR[:3, :3]))
    messages = [("/tf_static", START, bags.static_transform("camera", "lidar", *pose))]
    sparse = np.zeros((CAMERA.height, CAMERA.width), np.uint16)
    for number, frame in enumerate(room_frames(12)):
        stamp = START + number * 1_000_000_000
        messages += [
            ("/cam/camera_info", stamp, info(stamp)),
            ("/cam/image", stamp, bags.image(stamp, frame.rgb, "rgb8")),
            ("/cam/sensor_depth/image", stamp, bags.image(stamp, sparse, "16UC1")),
            ("/lidar/points", stamp, bags.cloud(stamp, frame.points)),
        ]
    folder = tmp_path_factory.mktemp("check") / "bag"
    return bags.write_bag(folder, messages, StoragePlugin.MCAP)


def extrinsics(error: tuple[float, ...]) -> list[str]:
    """The option --extrinsics of a calibration with an error."""
    wrong = small_motion(np.array(error)) @ T_CAMERA_LIDAR
    numbers = (*wrong[:3, 3], *quaternion_of(wrong[:3, :3]))
    return ["--extrinsics", *map(str, numbers)]


def test_right_and_wrong_extrinsics_of_a_bag(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only cloud is taken, not the sparse depth; what is printed as best fit passes."""
    picture = tmp_path / "check.png"
    command = ["bag", "check-calibration", str(recording), "--output", str(picture)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "points of /lidar/points" in said
    assert "extrinsics: right" in said
    turn = np.radians(2.0)
    assert main([*command, *extrinsics((0, turn, 0, 0, 0, 0))]) == 3
    said = capsys.readouterr().out
    assert "degrees (turned to the right)" in said
    best = next(line for line in said.splitlines() if "what fits best" in line)
    assert main([*command, "--extrinsics", *best.partition(": ")[2].split()]) == 0
    assert main([*command, *extrinsics((0, 0, 0, 0, 0.05, 0))]) == 3
    assert "cm (shifted down)" in capsys.readouterr().out
    # As calibrated at the left, with the best offset at the right, each with its caption.
    drawn = read_rgb(picture)
    assert drawn.shape == (3 * CAMERA.height + 28, 2 * 3 * CAMERA.width, 3)
    assert (drawn == (0, 255, 255)).all(axis=2).sum() > 1000


def test_one_frame_is_not_enough(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(recording), "--output", str(tmp_path / "one.png"), "--frames", "1"]
    assert main(["bag", "check-calibration", *arguments]) == 4
    said = capsys.readouterr().out
    assert "cannot tell" in said
    assert "record one or two minutes" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "0"], "--frames must be positive"),
        (["--points", "/no"], "no topic '/no'"),
        (["--scan", "/lidar/points"], "topics that can be scan"),
        (["--output", "check"], "check: give a name that ends in .png or .jpg"),
    ],
)
def test_faults_are_one_line(
    recording: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bag", "check-calibration", str(recording), *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_folder_without_depth_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bag", "check-calibration", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert main(["bag", "check-calibration", str(tmp_path), "--image", "/image"]) == 1
    assert "the other options are for a bag" in capsys.readouterr().err


def test_a_bag_without_a_usable_calibration_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uncalibrated = bags.camera_info(0, CAMERA.width, CAMERA.height)
    uncalibrated.k[:] = [0.0] * 9
    picture = np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8)
    depth = np.full((CAMERA.height, CAMERA.width), 900, np.uint16)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/camera_info", 0, uncalibrated),
            ("/image", 0, bags.image(0, picture, "rgb8")),
            ("/depth", 0, bags.image(0, depth, "16UC1")),
        ],
        StoragePlugin.MCAP,
    )
    assert main(["bag", "check-calibration", str(path)]) == 1
    error = capsys.readouterr().err
    assert "no frame can be read" in error and "give --intrinsics" in error


@pytest.mark.skipif(not KITTI.is_dir(), reason="the KITTI frames are not in ../shared/data")
def test_kitti(tmp_path: Path) -> None:
    """Two real frames: the published calibrations pass; 2 degrees and 5 cm are told."""
    picture = tmp_path / "kitti.png"
    assert main(["bag", "check-calibration", str(KITTI), "--output", str(picture)]) == 0
    frames = list(folder_frames(KITTI, 10))  # each drive has a calibration of its own
    turn = np.radians(2.0)
    for error in ((turn, 0, 0, 0, 0, 0), (0, turn, 0, 0, 0, 0), (0, 0, 0, 0.05, 0, 0)):
        motion = small_motion(np.array(error))
        wrong = [replace(f, T_camera_sensor=motion @ f.T_camera_sensor) for f in frames]
        assert check_recording(wrong, picture)[0].verdict == "off", error

"""Sensors' messages of one image to one sparse depth image: time, place, order, what is told."""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensor_msgs.msg import Image, LaserScan, PointCloud2, PointField
from std_msgs.msg import Header

from d3_ros.errors import TransformError
from d3_ros.geometry.rigid import rigid_transform
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.inputs.sensor_depth import SensorDepth, SensorReader
from d3_ros.ros.node.inputs.transforms import Extrinsic
from d3_ros.ros.parameters.metric_settings import ExtrinsicSettings, SensorDepthSettings
from d3_ros.types import CameraIntrinsics

pytestmark = pytest.mark.ros

WIDTH, HEIGHT = 64, 48
CAMERA = CameraIntrinsics(WIDTH, HEIGHT, 50.0, 50.0, 32.0, 24.0)
SAME = ExtrinsicSettings(T_camera_sensor="0 0 0 0 0 0 1")
GIVEN = SensorDepthSettings(points=SAME, scan=SAME)
TOPICS = {"image": "/depth", "points": "/lidar", "scan": "/scan"}


class Transforms:
    """Answers as it is told."""

    settling = False

    def __init__(self, answer: Extrinsic | TransformError | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    def lookup(
        self, camera: Header, sensor: Header, fixed_frame: str, timeout_s: float
    ) -> Extrinsic:
        self.asked.append((camera.frame_id, sensor.frame_id, fixed_frame))
        if isinstance(self.answer, TransformError):
            raise self.answer
        assert self.answer is not None
        return self.answer


class Tell:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, line: str) -> None:
        self.lines.append(line)


def header(seconds: float = 10.0, frame: str = "camera") -> Header:
    result = Header(frame_id=frame)
    result.stamp.sec, result.stamp.nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
    return result


def cloud(points: list[list[float]] | np.ndarray, seconds: float = 10.0) -> PointCloud2:
    rows = np.asarray(points, np.float32).reshape(-1, 3)
    message = PointCloud2(height=1, width=len(rows), point_step=12, row_step=12 * len(rows))
    message.header = header(seconds, "lidar")
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate("xyz")
    ]
    message.data = array.array("B", rows.tobytes())
    return message


def depth_image(depth: dict[tuple[int, int], float], seconds: float = 10.0) -> Image:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint16)
    for place, z in depth.items():
        pixels[place] = round(z * 1000)
    return ImageBuffer().fill(header(seconds), pixels, "16UC1")


def read(
    messages: dict[str, Any],
    *,
    settings: SensorDepthSettings = GIVEN,
    transforms: Transforms | None = None,
    camera: CameraIntrinsics | None = CAMERA,
    tell: Tell | None = None,
) -> SensorDepth:
    reader = SensorReader(TOPICS, "/image", transforms or Transforms(), tell or Tell())
    return reader(messages, header(), (HEIGHT, WIDTH), camera, settings)


def test_no_sensor_no_depth() -> None:
    result = read({})
    assert (result.depth, result.pixels, result.reason) == (None, {}, "no sensor depth")


def test_the_image_goes_before_points_and_points_before_the_scan() -> None:
    scan = LaserScan(header=header(), angle_min=0.0, angle_increment=0.1, range_max=50.0)
    scan.ranges = array.array("f", [9.0])
    turned = ExtrinsicSettings(T_camera_sensor="0 0 0 0.5 -0.5 0.5 0.5")
    result = read(
        {
            "scan": scan,  # its one reading is straight ahead: pixel (24, 32)
            "points": cloud([[0, 0, 5.0], [0.2, 0, 1.0]]),  # pixels (24, 32) and (24, 42)
            "image": depth_image({(24, 42): 2.0, (3, 4): 1.0}),
        },
        settings=SensorDepthSettings(points=SAME, scan=turned),
    )
    assert result.depth is not None
    assert result.pixels == {"image": 2, "points": 2, "scan": 1}
    known = {
        (int(v), int(u)): float(result.depth[v, u])
        for v, u in zip(*np.nonzero(result.depth > 0), strict=True)
    }
    assert known == {(24, 42): 2.0, (3, 4): 1.0, (24, 32): 5.0}


@pytest.mark.parametrize(("late", "used"), [(-0.04, True), (0.04, True), (-0.06, False)])
def test_sensors_that_do_not_follow_the_motion_must_be_of_the_image_s_time(
    late: float, used: bool
) -> None:
    for messages in (
        {"image": depth_image({(3, 4): 1.0}, 10.0 + late)},
        {"points": cloud([[0, 0, 5.0]], 10.0 + late)},
    ):
        tell = Tell()
        result = read(messages, tell=tell)
        assert (result.depth is not None) == used
        assert tell.lines == [], "a sensor of another rate is no fault"
        if not used:
            topic = "/depth" if "image" in messages else "/lidar"
            assert result.reason == (
                f"no sensor depth: '{topic}' is 0.06 s before the image "
                "(sensor_depth.tolerance 0.05 s)"
            )


@pytest.mark.parametrize(
    ("late", "follows", "used"),
    [(-0.15, True, True), (-0.15, False, False), (0.25, True, False), (-0.04, False, True)],
)
def test_sensors_that_follow_the_motion_may_be_older(
    late: float, follows: bool, used: bool
) -> None:
    transforms = Transforms(Extrinsic(np.eye(4), follows_motion=follows))
    result = read(
        {"points": cloud([[0, 0, 5.0]], 10.0 + late)},
        settings=SensorDepthSettings(),
        transforms=transforms,
    )
    assert (result.depth is not None) == used
    # One that is too old for either is not looked up: tf has forgotten its time.
    assert transforms.asked == ([] if abs(late) > 0.2 else [("camera", "lidar", "odom")])


def test_what_tf_does_not_know_is_told_but_not_at_once() -> None:
    messages = {"points": cloud([[0, 0, 5.0]])}
    transforms = Transforms(TransformError("no transform from 'lidar' to 'camera'"))
    transforms.settling = True
    tell = Tell()
    result = read(messages, settings=SensorDepthSettings(), transforms=transforms, tell=tell)
    assert (result.depth, tell.lines) == (None, [])
    transforms.settling = False
    result = read(messages, settings=SensorDepthSettings(), transforms=transforms, tell=tell)
    assert tell.lines == ["no transform from 'lidar' to 'camera'"]
    assert result.reason == "no sensor depth: no transform from 'lidar' to 'camera'"


def test_ranges_are_from_the_sensor_and_depth_is_from_the_camera() -> None:
    settings = SensorDepthSettings(
        min_range=1.0,
        max_range=4.0,
        points=ExtrinsicSettings(T_camera_sensor="0 0 2 0 0 0 1"),
    )
    near, good, far = [0, 0, 0.9], [0.5, 0, 3.0], [0, 0.5, 4.5]
    result = read({"points": cloud([near, good, far])}, settings=settings)
    assert result.depth is not None
    assert result.pixels == {"points": 1}
    assert np.nanmax(result.depth) == 5.0


def test_a_sensor_that_sees_elsewhere_is_named() -> None:
    result = read({"points": cloud([[0, 0, -5.0], [100, 0, 1.0]])})
    assert result.depth is None
    assert result.reason == "no sensor depth: '/lidar' measures nothing that the camera sees"


def test_points_behind_the_foreground_are_hidden_as_far_as_parameters_say() -> None:
    """A near wall of points three pixels apart, and between them one that shines through."""
    v, u = np.mgrid[10:40:3, 10:50:3]
    wall = np.stack([(u - 32.0) / 50.0, (v - 24.0) / 50.0, np.ones_like(u, float)], -1) * 1.0
    behind = np.array([[(30.0 - 32.0) / 50.0, (24.0 - 24.0) / 50.0, 1.0]]) * 3.0
    message = cloud(np.vstack([wall.reshape(-1, 3), behind]))
    window = 6.0 / WIDTH
    seen = read(
        {"points": message}, settings=SensorDepthSettings(points=SAME, hidden_window=window)
    )
    assert seen.depth is not None
    assert np.nanmax(seen.depth) == 1.0
    for kept in ({"hidden_window": 0.0}, {"hidden_window": window, "hidden_ratio": 0.7}):
        everything = read(
            {"points": message}, settings=SensorDepthSettings(points=SAME, **kept)
        ).depth
        assert everything is not None
        assert np.nanmax(everything) == 3.0


@pytest.mark.parametrize("number", ["000000", "000001"])
def test_a_real_sweep_lands_on_the_picture(test_data: Path, number: str) -> None:
    """KITTI's LiDAR through the message: pixels and depths as its calibration projects them."""
    rows = np.fromfile(test_data / "kitti" / f"{number}.bin", np.float32).reshape(-1, 4)
    calib = {
        name: np.array(values.split(), np.float64)
        for name, _, values in (
            line.partition(":")
            for line in (test_data / "kitti" / f"{number}_calib.txt").read_text().splitlines()
            if line
        )
    }
    p2 = calib["P2"].reshape(3, 4)
    rectify, lidar = np.eye(4), np.eye(4)
    rectify[:3, :3] = calib["R0_rect"].reshape(3, 3)
    lidar[:3] = calib["Tr_velo_to_cam"].reshape(3, 4)
    offset = np.eye(4)
    offset[:3, 3] = np.linalg.solve(p2[:, :3], p2[:, 3])
    extrinsic = offset @ rectify @ lidar
    camera = CameraIntrinsics(1242, 375, p2[0, 0], p2[1, 1], p2[0, 2], p2[1, 2])

    message = PointCloud2(height=1, width=len(rows), point_step=16, row_step=16 * len(rows))
    message.header = header(10.0, "velodyne")
    message.fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate(("x", "y", "z", "intensity"))
    ]
    message.data = array.array("B", rows.tobytes())
    reader = SensorReader(TOPICS, "/image", Transforms(Extrinsic(extrinsic)), Tell())
    settings = SensorDepthSettings(hidden_window=0.0)
    result = reader({"points": message}, header(), (375, 1242), camera, settings)

    # Straight from the calibration file's own formula.
    homogeneous = np.column_stack([rows[:, :3], np.ones(len(rows))])
    image = homogeneous @ (p2 @ rectify @ lidar).T
    image = image[image[:, 2] > 0]
    u, v = np.rint(image[:, :2] / image[:, 2:]).astype(int).T
    inside = (u >= 0) & (u < 1242) & (v >= 0) & (v < 375)
    expected = np.full((375, 1242), np.inf)
    np.minimum.at(expected, (v[inside], u[inside]), image[inside, 2])
    assert result.depth is not None
    measured = np.isfinite(expected)
    # Pixels on a border between two may go to either.
    assert (np.isfinite(result.depth) == measured).mean() > 0.9999
    both = measured & np.isfinite(result.depth)
    assert both.sum() > 15_000
    assert np.quantile(np.abs(result.depth[both] / expected[both] - 1), 0.999) < 1e-4


def test_the_extrinsic_is_a_matrix() -> None:
    settings = ExtrinsicSettings(T_camera_sensor="0.1, -0.2 0.3 0.5 -0.5 0.5 0.5")
    np.testing.assert_array_equal(
        settings.matrix, rigid_transform((0.1, -0.2, 0.3), (0.5, -0.5, 0.5, 0.5))
    )
    assert ExtrinsicSettings().matrix is None
    assert ExtrinsicSettings(T_camera_sensor="  ").matrix is None

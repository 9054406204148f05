"""The pipeline's order and laziness, with a network whose answer is known; and the shared types."""

from __future__ import annotations

import numpy as np
import pytest

from d3_ros.pipeline import DepthPipeline
from d3_ros.types import CameraIntrinsics, D3Prediction, DepthFit, Task

HEIGHT, WIDTH = 48, 64
INTRINSICS = CameraIntrinsics(WIDTH, HEIGHT, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
RGB = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
SCALE, SHIFT = 4.0, 1.0


class RampPredictor:
    """Depth grows from left to right, 0.1 to 0.9; normals all face the camera."""

    def __init__(self, tasks: tuple[Task, ...] = ("depth", "normals")) -> None:
        self.tasks = tasks
        self.asked: list[tuple[Task, ...]] = []

    def __call__(self, rgb: np.ndarray, tasks: tuple[Task, ...] | None = None) -> D3Prediction:
        tasks = self.tasks if tasks is None else tasks
        self.asked.append(tasks)
        ramp = np.linspace(0.1, 0.9, WIDTH, dtype=np.float32)
        facing = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        facing[..., 2] = -1.0
        return D3Prediction(
            depth=np.tile(ramp, (HEIGHT, 1)),
            normals=facing if "normals" in tasks else None,
        )


def sparse_depth(predictor: RampPredictor, every: int = 5) -> np.ndarray:
    relative = predictor(RGB).depth
    assert relative is not None
    sparse = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    sparse[::every, ::every] = SCALE * relative[::every, ::every] + SHIFT
    return sparse


def test_sensor_depth_makes_metres() -> None:
    predictor = RampPredictor()
    frame = DepthPipeline(predictor)(
        RGB, stamp=1.0, intrinsics=INTRINSICS, sparse=sparse_depth(predictor)
    )
    assert frame.fit.state == "measured"
    assert frame.metric is not None
    np.testing.assert_allclose(frame.metric, SCALE * frame.relative + SHIFT, rtol=1e-3)


def test_no_scale_no_metres() -> None:
    frame = DepthPipeline(RampPredictor())(RGB, stamp=1.0, intrinsics=INTRINSICS)
    assert frame.fit.state == "relative"
    assert frame.fit.reason
    assert frame.metric is None
    assert frame.normals is not None
    with pytest.raises(ValueError, match="no metric scale"):
        frame.fit.apply(frame.relative)


def test_only_what_is_wanted_is_predicted() -> None:
    predictor = RampPredictor()
    frame = DepthPipeline(predictor)(
        RGB, stamp=1.0, sparse=sparse_depth(predictor), outputs=("relative",)
    )
    assert predictor.asked[-1] == ("depth",)
    assert frame.metric is None
    assert frame.normals is None
    assert frame.fit.ok, "the scale state advances although nobody reads metres"


def test_normals_come_from_depth_where_the_model_has_none() -> None:
    predictor = RampPredictor(tasks=("depth",))
    pipeline = DepthPipeline(predictor)
    sparse = sparse_depth(predictor)
    frame = pipeline(RGB, stamp=1.0, intrinsics=INTRINSICS, sparse=sparse, outputs=("normals",))
    assert frame.metric is None
    assert frame.normals is not None
    # Hand-computed: z grows to the right, so the surface turns its left side to the camera:
    # it is met at x = 0 (column 31.5), where z = 3 and dz/du = 4 * 0.8 / 63. With x = 3 (u-31.5)/60
    # there, dz/dx = (4 * 0.8 / 63) * 60 / 3 and the normal is (dz/dx, 0, -1) normalised.
    slope = (SCALE * 0.8 / 63) * 60.0 / 3.0
    expected = np.array([slope, 0.0, -1.0]) / np.hypot(slope, 1.0)
    np.testing.assert_allclose(frame.normals[24, 31:33].mean(axis=0), expected, atol=0.02)

    without_intrinsics = pipeline(RGB, stamp=2.0, sparse=sparse, outputs=("normals",))
    assert without_intrinsics.normals is None


def test_saturated_depth_is_never_metres() -> None:
    fit = DepthFit(ok=True, state="measured", scale=2.0, shift=-0.5)
    relative = np.array([[0.0, 0.1, 0.5, 1.0, np.nan]], np.float32)
    metric = fit.apply(relative)
    assert metric.dtype == np.float32
    np.testing.assert_array_equal(
        metric, np.array([[np.nan, np.nan, 0.5, np.nan, np.nan]], np.float32)
    )


def test_intrinsics_scale_with_half_pixel_centres() -> None:
    camera = CameraIntrinsics(640, 480, fx=500.0, fy=510.0, cx=319.5, cy=239.5)
    half = camera.resized(320, 240)
    assert (half.fx, half.fy) == (250.0, 255.0)
    assert (half.cx, half.cy) == (159.5, 119.5), "the centre stays the centre"
    assert half.resized(640, 480) == camera
    assert camera.matrix.tolist() == [[500.0, 0.0, 319.5], [0.0, 510.0, 239.5], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "size must be positive"),
        ({"fx": 0.0}, "focal lengths"),
        ({"fy": float("nan")}, "focal"),
    ],
)
def test_impossible_cameras_are_refused(change: dict[str, float], words: str) -> None:
    values = {"width": 64, "height": 48, "fx": 60.0, "fy": 60.0, "cx": 31.5, "cy": 23.5}
    with pytest.raises(ValueError, match=words):
        CameraIntrinsics(**{**values, **change})  # type: ignore[arg-type]

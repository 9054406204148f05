"""The pipeline's order and laziness, with a network whose answer is known; and the shared types."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from d3_ros.geometry.alignment import AlignmentSettings
from d3_ros.geometry.camera import ray_map
from d3_ros.pipeline import DepthPipeline, FrameRequest, FusionOptions, ScaleSettings
from d3_ros.types import CameraIntrinsics, CameraMounting, D3Prediction, DepthFit, Task

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
        FrameRequest(RGB, stamp=1.0, intrinsics=INTRINSICS, sparse=sparse_depth(predictor))
    )
    assert frame.fit.state == "measured"
    assert frame.metric is not None
    np.testing.assert_allclose(frame.metric, SCALE * frame.relative + SHIFT, rtol=1e-3)


def test_no_scale_no_metres() -> None:
    frame = DepthPipeline(RampPredictor())(FrameRequest(RGB, stamp=1.0, intrinsics=INTRINSICS))
    assert frame.fit.state == "relative"
    assert frame.fit.reason
    assert frame.metric is None
    assert frame.normals is not None
    with pytest.raises(ValueError, match="no metric scale"):
        frame.fit.apply(frame.relative)


def test_only_what_is_wanted_is_predicted() -> None:
    predictor = RampPredictor()
    frame = DepthPipeline(predictor)(
        FrameRequest(RGB, stamp=1.0, sparse=sparse_depth(predictor), outputs={"relative"})
    )
    assert predictor.asked[-1] == ("depth",)
    assert frame.metric is None
    assert frame.normals is None
    assert frame.fit.ok, "the scale state advances although nobody reads metres"


def test_normals_come_from_depth_where_the_model_has_none() -> None:
    predictor = RampPredictor(tasks=("depth",))
    pipeline = DepthPipeline(predictor)
    sparse = sparse_depth(predictor)
    frame = pipeline(
        FrameRequest(RGB, stamp=1.0, intrinsics=INTRINSICS, sparse=sparse, outputs={"normals"})
    )
    assert frame.metric is None
    assert frame.normals is not None
    # Hand-computed: z grows to the right, so the surface turns its left side to the camera:
    # it is met at x = 0 (column 31.5), where z = 3 and dz/du = 4 * 0.8 / 63. With x = 3 (u-31.5)/60
    # there, dz/dx = (4 * 0.8 / 63) * 60 / 3 and the normal is (dz/dx, 0, -1) normalised.
    slope = (SCALE * 0.8 / 63) * 60.0 / 3.0
    expected = np.array([slope, 0.0, -1.0]) / np.hypot(slope, 1.0)
    np.testing.assert_allclose(frame.normals[24, 31:33].mean(axis=0), expected, atol=0.02)

    without_intrinsics = pipeline(FrameRequest(RGB, stamp=2.0, sparse=sparse, outputs={"normals"}))
    assert without_intrinsics.normals is None


def test_why_there_is_no_sensor_depth_is_handed_on() -> None:
    frame = DepthPipeline(RampPredictor())(
        FrameRequest(RGB, stamp=1.0, missing="the LiDAR is asleep")
    )
    assert frame.fit.reason == "the LiDAR is asleep"


def test_measured_pixels_pass_where_they_agree_and_are_in_range() -> None:
    predictor = RampPredictor()
    sparse = sparse_depth(predictor)
    pipeline = DepthPipeline(predictor)
    settings = ScaleSettings(
        alignment=AlignmentSettings(local_correction=False, max_depth=20.0),
        fusion=FusionOptions(tolerance=0.1, blend_px=0),
    )
    sparse[0, 0] *= 1.05  # agrees
    sparse[5, 5] *= 1.5  # does not
    sparse[10, 10] = 30.0  # out of range: no measurement
    frame = pipeline(FrameRequest(RGB, stamp=1.0, sparse=sparse, settings=settings))
    plain = SCALE * frame.relative + SHIFT
    assert frame.metric is not None
    assert frame.metric[0, 0] == sparse[0, 0]
    np.testing.assert_allclose(frame.metric[5, 5], plain[5, 5], rtol=0.01)
    np.testing.assert_allclose(frame.metric[10, 10], plain[10, 10], rtol=0.01)
    assert frame.fused_pixels == np.isfinite(sparse).sum() - 2
    assert frame.disagreeing_pixels == 1
    held = pipeline(FrameRequest(RGB, stamp=1.1, settings=settings))
    assert (held.fit.state, held.fused_pixels) == ("held", 0)


def test_what_is_too_unsure_is_unknown() -> None:
    predictor = RampPredictor()
    sparse = sparse_depth(predictor)
    sparse[: HEIGHT // 2] = np.nan
    request = FrameRequest(RGB, 1.0, sparse=sparse, outputs={"metric", "uncertainty"})
    everything = DepthPipeline(predictor)(request)
    metric, sigma = everything.metric, everything.uncertainty
    assert metric is not None and sigma is not None
    assert (sigma > 0).all()
    limit = float(np.median(sigma / metric))
    strict = replace(request, settings=ScaleSettings(max_relative_sigma=limit))
    frame = DepthPipeline(predictor)(strict)
    unsure = sigma > np.float32(limit) * metric
    assert 0.3 < unsure.mean() < 0.7
    for plane, whole in ((frame.metric, metric), (frame.uncertainty, sigma)):
        np.testing.assert_array_equal(plane, np.where(unsure, np.nan, whole))
    only_depth = DepthPipeline(predictor)(replace(strict, outputs={"metric"}))
    assert only_depth.uncertainty is None
    np.testing.assert_array_equal(only_depth.metric, frame.metric)


def test_measured_pixels_are_known_however_unsure_the_prediction_is() -> None:
    predictor = RampPredictor()
    sparse = sparse_depth(predictor)
    settings = ScaleSettings(fusion=FusionOptions(0.1, blend_px=0), max_relative_sigma=1e-4)
    frame = DepthPipeline(predictor)(FrameRequest(RGB, 1.0, sparse=sparse, settings=settings))
    assert frame.metric is not None and frame.uncertainty is not None
    measured = np.isfinite(sparse)
    np.testing.assert_array_equal(frame.metric[measured], sparse[measured])
    assert np.isnan(frame.metric[~measured]).all()
    np.testing.assert_array_equal(np.isfinite(frame.uncertainty), measured)


def test_the_scale_begins_anew_after_a_reset_and_after_a_change_of_its_settings() -> None:
    predictor = RampPredictor()
    pipeline = DepthPipeline(predictor)
    sparse = sparse_depth(predictor)

    def state(stamp: float, sparse: np.ndarray | None = None, **settings: object) -> str:
        chosen = ScaleSettings(**settings)  # type: ignore[arg-type]
        return pipeline(FrameRequest(RGB, stamp, sparse=sparse, settings=chosen)).fit.state

    assert [state(1.0, sparse), state(1.1)] == ["measured", "held"]
    assert state(1.2, fusion=FusionOptions(0.1, 0)) == "held", "the fusion is no part of it"
    assert state(1.2, max_relative_sigma=0.5) == "held", "nor is what is done with the error"
    pipeline.reset()
    assert [state(1.3), state(1.4, sparse), state(1.5)] == ["relative", "measured", "held"]
    assert state(1.6, alignment=AlignmentSettings(smoothing=0.5)) == "relative"


def test_what_an_image_does_not_show_is_nan_in_every_output() -> None:
    predictor = RampPredictor()
    outside = np.zeros((HEIGHT, WIDTH), bool)
    outside[:5] = True
    frame = DepthPipeline(predictor)(
        FrameRequest(RGB, 1.0, sparse=sparse_depth(predictor), outside=outside)
    )
    for plane in (frame.relative, frame.metric, frame.uncertainty, frame.normals):
        assert plane is not None
        assert np.isnan(plane[outside]).all()
        assert np.isfinite(plane[~outside]).all()


def test_planned_and_finished_by_hand_is_the_same_as_called() -> None:
    """As the node does it, which sends several cameras' images through the network together."""
    predictor = RampPredictor()
    request = FrameRequest(RGB, 1.0, sparse=sparse_depth(predictor), outputs={"metric"})
    called = DepthPipeline(predictor)(request)
    pipeline = DepthPipeline(predictor)
    tasks = pipeline.plan(request)
    assert tasks == ("depth",)
    by_hand = pipeline.finish(request, predictor(request.rgb, tasks))
    assert by_hand.metric is not None
    np.testing.assert_array_equal(by_hand.metric, called.metric)


class FloorPredictor(RampPredictor):
    """A level camera 0.4 m over a floor that ends at a wall 3 m ahead."""

    def __call__(self, rgb: np.ndarray, tasks: tuple[Task, ...] | None = None) -> D3Prediction:
        tasks = self.tasks if tasks is None else tasks
        self.asked.append(tasks)
        down = ray_map(INTRINSICS)[..., 1]
        floor = 0.4 / np.maximum(down, 1e-6) < 3.0
        depth = np.where(floor, 0.4 / np.maximum(down, 1e-6), 3.0).astype(np.float32)
        normals = np.where(floor[..., None], [0, -1, 0], [0, 0, -1]).astype(np.float32)
        return D3Prediction(
            depth=((depth - 0.5) / 4.0).astype(np.float32),
            normals=normals if "normals" in tasks else None,
        )


MOUNTING = CameraMounting(height_m=0.4)


def test_the_floor_gives_metres_where_no_sensor_does() -> None:
    predictor = FloorPredictor()
    pipeline = DepthPipeline(predictor)
    frame = pipeline(
        FrameRequest(RGB, stamp=1.0, intrinsics=INTRINSICS, mounting=MOUNTING, outputs={"metric"})
    )
    assert frame.fit.state == "ground"
    assert frame.fit.reason == "no sensor depth"
    assert np.isnan(frame.fit.abs_rel), "no sensor has judged it"
    assert frame.metric is not None
    np.testing.assert_allclose(frame.metric, frame.relative * 4.0 + 0.5, rtol=0.01)
    assert frame.normals is None, "not asked for"
    assert predictor.asked == [("depth", "normals")], "one pass"


def test_a_level_part_of_the_robot_is_no_floor_where_it_is_masked() -> None:
    floor = FloorPredictor()(RGB).depth
    assert floor is not None
    masked = floor < floor.max()
    frame = DepthPipeline(FloorPredictor())(
        FrameRequest(RGB, stamp=1.0, intrinsics=INTRINSICS, mounting=MOUNTING, outside=masked)
    )
    assert frame.fit.reason == "no sensor depth; floor: only 0.0% of the image is floor"


def test_the_floor_is_looked_for_only_when_the_sensor_s_scale_has_expired() -> None:
    predictor = FloorPredictor()
    pipeline = DepthPipeline(predictor)
    settings = ScaleSettings(alignment=AlignmentSettings(hold_s=0.5))
    relative = predictor(RGB).depth
    assert relative is not None
    predictor.asked.clear()
    states = []
    for stamp in (1.0, 1.3, 1.6, 1.9):
        frame = pipeline(
            FrameRequest(
                RGB,
                stamp=stamp,
                intrinsics=INTRINSICS,
                sparse=relative * 4 + 0.5 if stamp == 1.0 else None,
                mounting=MOUNTING,
                outputs={"metric"},
                settings=settings,
            )
        )
        states.append(frame.fit.state)
    assert states == ["measured", "held", "ground", "ground"]
    # The frame that finds the scale expired needs a second pass, those after it do not.
    assert predictor.asked == [
        ("depth",),
        ("depth",),
        ("depth",),
        ("normals",),
        ("depth", "normals"),
    ]


@pytest.mark.parametrize(
    ("tasks", "intrinsics", "words"),
    [
        (("depth",), INTRINSICS, "floor: the model predicts no normals"),
        (("depth", "normals"), None, "floor: no calibrated camera"),
    ],
)
def test_why_the_floor_gives_no_metres(
    tasks: tuple[Task, ...], intrinsics: CameraIntrinsics | None, words: str
) -> None:
    pipeline = DepthPipeline(FloorPredictor(tasks))
    frame = pipeline(FrameRequest(RGB, stamp=1.0, intrinsics=intrinsics, mounting=MOUNTING))
    assert (frame.fit.state, frame.metric) == ("relative", None)
    assert frame.fit.reason == f"no sensor depth; {words}"


def test_without_floor_the_scale_from_it_is_held_and_then_given_up() -> None:
    pipeline = DepthPipeline(FloorPredictor())
    settings = ScaleSettings(alignment=AlignmentSettings(hold_s=0.5))
    states = []
    for stamp in (1.0, 1.3, 1.6):
        if stamp > 1.0:
            pipeline.predictor = RampPredictor()  # a wall
        frame = pipeline(
            FrameRequest(
                RGB, stamp=stamp, intrinsics=INTRINSICS, mounting=MOUNTING, settings=settings
            )
        )
        states.append(frame.fit.state)
    assert states == ["ground", "held", "relative"]
    assert "floor: only 0.0% of the image is floor" in frame.fit.reason


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

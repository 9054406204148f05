"""CameraInfo to intrinsics and back: region of interest, binning, rectification, faults."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image

from d3_ros.errors import MessageError
from d3_ros.messages.camera_info import (
    intrinsics_from_camera_info,
    output_camera_info,
    why_uncalibrated,
)
from d3_ros.types import CameraIntrinsics

pytestmark = pytest.mark.ros

NAMES = {"topic": "cam/camera_info", "image_topic": "cam/image"}


def camera_info() -> CameraInfo:
    """640 x 480; K and P differ, so that a test sees which one was taken."""
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob")
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.p = [480.0, 0.0, 310.0, -48.0, 0.0, 490.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    info.d = [0.1, -0.2, 0.001, 0.002, 0.0]
    return info


def numbers(intrinsics: CameraIntrinsics) -> tuple[float, ...]:
    return (intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy)


def test_a_raw_image_has_k_and_d() -> None:
    camera = intrinsics_from_camera_info(camera_info(), 640, 480, **NAMES)
    assert camera == CameraIntrinsics(
        640, 480, 500.0, 510.0, 320.0, 240.0, "plumb_bob", (0.1, -0.2, 0.001, 0.002)
    )


def test_a_rectified_image_has_p_and_no_distortion() -> None:
    camera = intrinsics_from_camera_info(camera_info(), 640, 480, **NAMES, rectified=True)
    assert camera == CameraIntrinsics(640, 480, 480.0, 490.0, 310.0, 230.0)


def test_region_of_interest_and_binning_are_applied() -> None:
    info = camera_info()
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 400, 300
    info.binning_x, info.binning_y = 2, 3
    camera = intrinsics_from_camera_info(info, 200, 100, **NAMES)
    # cx' = (320 - 100) / 2, cy' = (240 - 50) / 3, fx' = 500 / 2, fy' = 510 / 3
    assert numbers(camera) == pytest.approx((250.0, 170.0, 110.0, 190.0 / 3))
    assert (camera.width, camera.height) == (200, 100)


def test_an_uncalibrated_camera_is_none() -> None:
    info = CameraInfo(width=640, height=480)
    assert intrinsics_from_camera_info(info, 640, 480, **NAMES) is None
    raw_only = camera_info()
    raw_only.p = [0.0] * 12
    assert intrinsics_from_camera_info(raw_only, 640, 480, **NAMES, rectified=True) is None
    assert intrinsics_from_camera_info(raw_only, 640, 480, **NAMES) is not None


def test_sizes_that_disagree_are_told_with_both_sizes() -> None:
    with pytest.raises(MessageError) as told:
        intrinsics_from_camera_info(camera_info(), 320, 240, **NAMES)
    for word in ("'cam/camera_info'", "640 x 480", "'cam/image'", "320 x 240"):
        assert word in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -500.0, 1e-300, 1e300])
@pytest.mark.parametrize("index", [0, 4, 2, 5])
def test_an_unusable_focal_length_or_centre_is_told(bad: float, index: int) -> None:
    if index in (2, 5) and abs(bad) < 1e7:
        bad = np.nan  # a principal point may be anywhere near the image
    info = camera_info()
    info.k[index] = bad
    with pytest.raises(MessageError, match="'cam/camera_info' has an unusable K"):
        intrinsics_from_camera_info(info, 640, 480, **NAMES)


def test_an_unknown_distortion_model_is_told() -> None:
    info = camera_info()
    info.distortion_model = "barrel"
    with pytest.raises(MessageError, match=r"'barrel', known are plumb_bob, rational_polynomial"):
        intrinsics_from_camera_info(info, 640, 480, **NAMES)
    rectified = intrinsics_from_camera_info(info, 640, 480, **NAMES, rectified=True)
    assert rectified is not None


def test_a_wrong_number_of_coefficients_is_told() -> None:
    info = camera_info()
    info.d = [0.1, 0.2]
    with pytest.raises(MessageError, match=r"'cam/camera_info': .*4 or 5 coefficients, got 2"):
        intrinsics_from_camera_info(info, 640, 480, **NAMES)


@pytest.mark.parametrize("model", ["", "plumb_bob", "rational_polynomial", "anything"])
def test_zero_distortion_is_none_whatever_it_is_called(model: str) -> None:
    info = camera_info()
    info.distortion_model, info.d = model, [0.0] * 5
    camera = intrinsics_from_camera_info(info, 640, 480, **NAMES)
    assert (camera.distortion_model, camera.distortion) == ("none", ())


def test_an_equidistant_lens_bends_even_with_zeros() -> None:
    info = camera_info()
    info.distortion_model, info.d = "equidistant", [0.0] * 4
    camera = intrinsics_from_camera_info(info, 640, 480, **NAMES)
    assert (camera.distortion_model, camera.distortion) == ("equidistant", ())


def test_a_rational_model_of_opencv_has_trailing_zeros() -> None:
    info = camera_info()
    info.distortion_model = "rational_polynomial"
    info.d = [0.1, 0.2, 0.0, 0.0, 0.3, 0.4, 0.5, 0.6, *[0.0] * 6]
    camera = intrinsics_from_camera_info(info, 640, 480, **NAMES)
    assert camera.distortion == (0.1, 0.2, 0.0, 0.0, 0.3, 0.4, 0.5, 0.6)
    info.d[8] = 0.01  # a thin prism term
    camera = intrinsics_from_camera_info(info, 640, 480, **NAMES)
    assert camera.distortion == tuple(info.d[:12])


def test_what_is_missing_and_what_to_do_is_told() -> None:
    only_k, only_p, neither = camera_info(), camera_info(), CameraInfo()
    only_k.p, only_p.k = [0.0] * 12, [0.0] * 9
    told = why_uncalibrated(only_k, "c", rectified=True)
    assert "has a K but no P (P[0] = 0)" in told
    assert "image.rectified to false" in told
    told = why_uncalibrated(only_p, "c", rectified=False)
    assert "has a P but no K (K[0] = 0): set image.rectified to true" in told
    assert why_uncalibrated(neither, "c", rectified=True).startswith("'c' is uncalibrated (P[0] =")
    assert why_uncalibrated(neither, "c", rectified=False).startswith("'c' is uncalibrated (K[0] =")


def test_binning_that_was_applied_to_the_size_already_is_told() -> None:
    info = camera_info()
    info.binning_x = info.binning_y = 2
    with pytest.raises(MessageError, match=r"describes 320 x 240 .* binning 2 x 2 is applied"):
        intrinsics_from_camera_info(info, 640, 480, **NAMES)


def test_a_focal_length_that_binning_turns_to_zero_is_told() -> None:
    info = camera_info()
    info.binning_x = info.binning_y = 2
    info.p[0] = 5e-324
    with pytest.raises(MessageError, match="unusable P"):
        intrinsics_from_camera_info(info, 320, 240, **NAMES, rectified=True)


def test_output_of_the_same_size_keeps_everything() -> None:
    image = Image()
    image.header.frame_id = "optical"
    out = output_camera_info(camera_info(), image.header, 640, 480)
    expected = camera_info()
    expected.header = image.header
    assert out == expected


def test_output_has_region_and_binning_applied_and_cleared() -> None:
    info = camera_info()
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 100, 50, 400, 300
    info.binning_x, info.binning_y = 2, 2
    out = output_camera_info(info, Image().header, 200, 150)
    assert list(out.k) == [250.0, 0.0, 110.0, 0.0, 255.0, 95.0, 0.0, 0.0, 1.0]
    assert list(out.p) == [240.0, 0, 105.0, -24.0, 0, 245.0, 90.0, 0, 0, 0, 1, 0]
    assert (out.width, out.height, out.binning_x, out.binning_y) == (200, 150, 0, 0)
    assert out.roi == CameraInfo().roi
    assert list(out.d) == list(info.d)


def test_output_of_another_size_scales_about_pixel_centres() -> None:
    out = output_camera_info(camera_info(), Image().header, 320, 240)
    # cx' = (320 + 0.5) / 2 - 0.5
    assert list(out.k) == [250.0, 0.0, 159.75, 0.0, 255.0, 119.75, 0.0, 0.0, 1.0]
    assert out.p[3] == -24.0


def test_output_of_a_rectified_image_has_no_distortion() -> None:
    out = output_camera_info(camera_info(), Image().header, 640, 480, rectified=True)
    assert list(out.k) == [480.0, 0.0, 310.0, 0.0, 490.0, 230.0, 0.0, 0.0, 1.0]
    assert list(out.d) == [0.0] * 5
    assert out.r.reshape(3, 3).tolist() == np.eye(3).tolist()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 40), st.integers(0, 40))
def test_what_we_publish_reads_as_what_we_read(bx: int, by: int, x: int, y: int) -> None:
    """Reading our output gives the camera of the input, at any size."""
    info = camera_info()
    info.binning_x, info.binning_y = bx, by
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = x, y, 480, 360
    width, height = 480 // bx, 360 // by
    camera = intrinsics_from_camera_info(info, width, height, **NAMES)
    out = output_camera_info(info, Image().header, width, height)
    assert numbers(intrinsics_from_camera_info(out, width, height, **NAMES)) == pytest.approx(
        numbers(camera)
    )
    half = output_camera_info(info, Image().header, width // 2, height // 2)
    read = intrinsics_from_camera_info(half, width // 2, height // 2, **NAMES)
    assert numbers(read) == pytest.approx(numbers(camera.resized(width // 2, height // 2)))

"""Sensor depth where it exists and agrees."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from d3_ros.geometry.fusion import fuse

NAN = np.float32(np.nan)


def test_agreeing_pixels_pass_disagreeing_ones_do_not():
    predicted = np.full((20, 40), 2.0, np.float32)
    sensor = np.full((20, 40), NAN)
    sensor[5, 5], sensor[5, 30], sensor[15, 5] = 2.1, 3.0, 0.0
    copies = predicted.copy(), sensor.copy()
    fusion = fuse(predicted, sensor, tolerance=0.1, blend_px=0)
    assert (fusion.kept, fusion.disagreeing) == (1, 1)
    assert fusion.depth[5, 5] == np.float32(2.1) and fusion.depth[5, 30] == 2.0
    assert (np.delete(fusion.depth.ravel(), 5 * 40 + 5) == 2.0).all()
    np.testing.assert_array_equal(predicted, copies[0])
    np.testing.assert_array_equal(sensor, copies[1])


def test_borders_are_blended_within_the_surface():
    predicted = np.full((20, 40), 2.0, np.float32)
    predicted[:, 30:] = 5.0
    sensor = np.full((20, 40), NAN)
    sensor[:, :20] = 2.1
    depth = fuse(predicted, sensor, blend_px=12).depth
    assert (depth[:, :20] == np.float32(2.1)).all()
    border = depth[10, 19:30]
    assert (np.diff(border) < 0).all() and border[1] > 2.08 and border[-1] < 2.03
    assert (depth[:, 30:] == 5.0).all()  # beyond a depth edge nothing is bent


def test_measured_where_nothing_is_predicted_is_kept():
    predicted = np.full((4, 4), NAN)
    sensor = np.full((4, 4), NAN)
    sensor[1, 1] = 3.0
    fusion = fuse(predicted, sensor)
    assert fusion.depth[1, 1] == 3.0 and fusion.kept == 1
    assert np.isnan(fusion.depth).sum() == 15


def test_where_the_prediction_is_unsure_the_measurement_is_believed():
    predicted = np.full((4, 6), 2.0, np.float32)
    predicted[3, 5] = NAN
    sigma = np.full((4, 6), 0.05, np.float32)
    sigma[:, 3:] = 0.6
    sigma[3, 5] = NAN
    sensor = np.full((4, 6), NAN)
    sensor[1, 1] = sensor[1, 4] = 3.0  # 1 m off: 20 sigma, and less than 2
    sensor[2, 1] = 2.2  # within the tolerance
    sensor[3, 5] = 4.0
    copy = sigma.copy()
    fusion = fuse(predicted, sensor, tolerance=0.1, blend_px=0, sigma_m=sigma)
    assert (fusion.kept, fusion.disagreeing) == (3, 1)
    assert (fusion.depth[1, 1], fusion.depth[1, 4], fusion.depth[2, 1]) == (2.0, 3.0, sensor[2, 1])
    # A measured pixel has the sensor's error, unless the prediction's is smaller.
    expected = copy.copy()
    expected[1, 4], expected[2, 1], expected[3, 5] = 0.06, 0.044, 0.08
    np.testing.assert_allclose(fusion.sigma, expected, rtol=1e-6)
    np.testing.assert_array_equal(sigma, copy)
    assert fuse(predicted, sensor).sigma is None


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="size"):
        fuse(np.ones((2, 2), np.float32), np.ones((2, 3), np.float32))


def test_sensor_depth_of_real_frames_is_kept_and_its_holes_are_filled(test_data):
    """Half of a real depth image is withheld: what is kept is exact, what is filled is closer."""
    from d3_ros.geometry.alignment import ScaleAligner

    for number in (0, 20):
        file = sorted((test_data / "osd" / "depth").glob("*.png"))[number]
        truth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        truth[truth == 0] = NAN
        rows = np.linspace(0.95, 0.05, len(truth), dtype=np.float32)
        relative = np.ascontiguousarray(np.broadcast_to(rows[:, None], truth.shape))
        few = np.full_like(truth, NAN)
        few[::24, ::24] = truth[::24, ::24]
        predicted = ScaleAligner().update(relative, few, stamp=0.0).apply(relative)
        sensor = truth.copy()
        checks = (np.add.outer(np.arange(480) // 16, np.arange(640) // 16) % 2).astype(bool)
        sensor[checks] = NAN
        fusion = fuse(predicted, sensor)
        passed = np.isfinite(sensor) & (fusion.depth == sensor)
        assert fusion.kept == passed.sum()
        assert fusion.kept + fusion.disagreeing == np.isfinite(sensor).sum()
        assert fusion.kept > 0.8 * np.isfinite(sensor).sum()
        hidden = checks & np.isfinite(truth)
        before, after = (
            np.abs(depth / truth - 1)[hidden].mean() for depth in (predicted, fusion.depth)
        )
        assert after < before

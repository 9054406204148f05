"""Metrics by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros.errors import DataError
from d3_ros.evaluation import dataset, metrics
from d3_ros.types import D3Prediction

TRUTH = np.array([[1.0, 2.0], [4.0, 0.0]])
VALID = TRUTH > 0


def test_affine_align_recovers_scale_and_shift() -> None:
    relative = (TRUTH - 0.5) / 5
    assert metrics.affine_align(relative, TRUTH, VALID) == pytest.approx((5.0, 0.5))


def test_constant_depth_is_aligned_to_the_mean() -> None:
    assert metrics.affine_align(np.full((2, 2), 0.3), TRUTH, VALID) == pytest.approx((0, 7 / 3))


def test_affine_align_needs_two_pixels() -> None:
    with pytest.raises(ValueError, match="at least 2 valid pixels, got 1"):
        metrics.affine_align(TRUTH, TRUTH, TRUTH == 1.0)


def test_scores_by_hand() -> None:
    predicted = np.array([[1.2, 1.5], [4.0, 9.0]])
    assert metrics.abs_rel(predicted, TRUTH, VALID) == pytest.approx((0.2 + 0.25 + 0) / 3)
    assert metrics.rmse(predicted, TRUTH, VALID) == pytest.approx(np.sqrt((0.04 + 0.25) / 3))
    assert metrics.delta1(predicted, TRUTH, VALID) == pytest.approx(2 / 3)  # 2 / 1.5 > 1.25
    assert np.isnan(metrics.abs_rel(predicted, TRUTH, ~VALID & False))


def test_normal_angles() -> None:
    truth = np.array([[(0, 0, -1.0), (0, -1.0, 0)]])
    predicted = np.array([[(0, 0, -1.0), (1.0, 0, 0)]])
    angles = metrics.normal_angles(predicted, truth, np.array([[True, True]]))
    assert angles == pytest.approx([0, 90])


class _Perfect:
    """Knows the depth of the only frame, up to scale and shift, and that it looks at a wall."""

    tasks = ("depth", "normals")

    def __call__(self, rgb: np.ndarray, tasks: object = None) -> D3Prediction:
        depth = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
        return D3Prediction(depth, np.tile(np.float32((0, 0, -1)), (4, 5, 1)))


def test_evaluate_a_folder(tmp_path: Path) -> None:
    for kind in ("rgb", "depth", "normals"):
        (tmp_path / kind).mkdir()
    depth = (1000 + 3000 * np.linspace(0, 1, 20)).reshape(4, 5)
    cv2.imwrite(str(tmp_path / "rgb" / "a.png"), np.zeros((4, 5, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "depth" / "a.png"), depth.astype(np.uint16))
    cv2.imwrite(str(tmp_path / "normals" / "a.png"), np.full((4, 5, 3), (1, 128, 128), np.uint8))
    (row,) = dataset.evaluate(_Perfect(), tmp_path)
    assert row["frame"] == "a"
    assert row["abs_rel"] == pytest.approx(0, abs=1e-3)  # rounded to millimetres
    assert row["delta1"] == 1.0
    assert row["normals_mean_deg"] == pytest.approx(0, abs=1e-3)
    assert dataset.mean_scores([row, {"frame": "b", "abs_rel": 1.0}])["abs_rel"] == pytest.approx(
        0.5, abs=1e-3
    )
    (tmp_path / "depth" / "a.png").unlink()
    with pytest.raises(DataError, match="has no depth"):
        list(dataset.evaluate(_Perfect(), tmp_path))


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no frames"):
        dataset.frames(tmp_path)

"""The bundled model: its size, its licence, and that it still sees what it saw when trained."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT, SAMPLE_WALK

from d3_ros.evaluation.scores import affine_depth
from d3_ros.metrics import abs_rel
from d3_ros.network import D3Predictor

NANO = ROOT / "models" / "d3_nano"
SAMPLE = SAMPLE_WALK


@pytest.fixture(scope="module")
def nano() -> D3Predictor:
    return D3Predictor.from_pretrained(NANO, device="cpu", dtype="fp32")


def test_bundle_is_small_and_free() -> None:
    assert sum(path.stat().st_size for path in NANO.rglob("*") if path.is_file()) < 60_000_000
    assert '"Apache-2.0"' in (NANO / "bundle.json").read_text()


def _abs_rel(relative: np.ndarray, metric: np.ndarray) -> float:
    """After the best affine fit to the known depth (0 = not known)."""
    return abs_rel(affine_depth(relative, metric), metric, metric > 0)


# Bounds: what the shipped bundle reaches (0.0340, 0.2157), plus a tenth at most. The median depth
# scores 0.188 on average over osd and 0.465 over room.
@pytest.mark.parametrize(
    ("picture", "depth", "bound"),
    [("osd/rgb/20.jpg", "osd/depth/20.png", 0.0374), ("room/rgb/4.png", "room/depth/4.png", 0.237)],
)
def test_depth_of_real_frames(
    nano: D3Predictor, test_data: Path, picture: str, depth: str, bound: float
) -> None:
    rgb = cv2.imread(str(test_data / picture))[..., ::-1]
    metric = cv2.imread(str(test_data / depth), cv2.IMREAD_UNCHANGED) / np.float32(1000)
    prediction = nano(rgb, tasks=("depth",))
    assert prediction.depth is not None
    assert _abs_rel(prediction.depth, metric) < bound


def test_depth_and_normals_of_the_rendered_walk(nano: D3Predictor) -> None:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with AnyReader([SAMPLE], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
        first = {}
        for connection, _, raw in reader.messages():
            if connection.topic in first:
                break
            first[connection.topic] = reader.deserialize(raw, connection.msgtype)
    jpeg = first["/camera/image/compressed"].data
    rgb = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1]
    metric = first["/camera/truth/depth"].data.view("<u2").reshape(240, 320) / np.float32(1000)
    prediction = nano(rgb)
    assert prediction.depth is not None
    assert prediction.normals is not None
    assert _abs_rel(prediction.depth, metric) < 0.116  # 0.1058 and a tenth
    # The floor at the bottom of the picture looks up (y down), everything else at the camera.
    floor = np.nanmean(prediction.normals[-20:], axis=(0, 1))
    assert floor[1] < -0.5
    assert np.nanmean(prediction.normals[..., 2]) < 0

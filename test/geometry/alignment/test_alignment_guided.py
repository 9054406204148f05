"""Detail guided by the image: edges that the network does not know, and when it is left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from d3_ros.data.held_out_points import draw_points
from d3_ros.geometry.alignment import ScaleAligner
from d3_ros.geometry.alignment.local.guided_detail import VARIANTS, _Cells, styles_for

SHAPE = (240, 320)
V, U = np.mgrid[: SHAPE[0], : SHAPE[1]]
RELATIVE = (0.9 - 0.7 * V / SHAPE[0]).astype(np.float32)
BOX = (slice(90, 180), slice(120, 200))
RNG = np.random.default_rng(0)


def scene(colour_of_box: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Metres and image of a slanted ground with a box that the network does not see."""
    truth = (0.5 + 4.0 * RELATIVE).astype(np.float32)
    truth[BOX] = 1.2
    image = np.full((*SHAPE, 3), (150, 140, 120), np.uint8)
    image[BOX] = colour_of_box
    return truth, image + RNG.integers(0, 8, image.shape, np.uint8)


def near_edges() -> np.ndarray:
    box = np.zeros(SHAPE, np.uint8)
    box[BOX] = 1
    ring = cv2.dilate(box, np.ones((11, 11))) - cv2.erode(box, np.ones((11, 11)))
    return ring > 0


def error(fit, truth: np.ndarray, where=...) -> float:
    return float(np.nanmean(np.abs(fit.apply(RELATIVE) / truth - 1)[where]))


@pytest.mark.parametrize("points", [100, 500, 2000])
def test_an_edge_of_the_image_becomes_an_edge_of_depth(points):
    truth, image = scene((60, 40, 160))
    sparse = draw_points(truth, points, pattern="random", seed=1)
    with_image = ScaleAligner().update(RELATIVE, sparse, 0.0, rgb=image)
    without = ScaleAligner().update(RELATIVE, sparse, 0.0)
    ring = near_edges()
    share = 0.75 if points == 100 else 0.6
    assert error(with_image, truth, ring) < share * error(without, truth, ring)
    assert error(with_image, truth) < 0.8 * error(without, truth)
    if points == 500:  # the step is as steep as the image's: within four pixels
        metric = with_image.apply(RELATIVE)
        step = np.median(metric[100:170, 203] - metric[100:170, 197])
        assert step > 0.7 * np.median(truth[100:170, 203] - truth[100:170, 197])


def test_an_image_without_edges_does_no_harm():
    truth, image = scene((150, 140, 120))
    sparse = draw_points(truth, 500, pattern="random", seed=1)
    with_image = ScaleAligner().update(RELATIVE, sparse, 0.0, rgb=image)
    without = ScaleAligner().update(RELATIVE, sparse, 0.0)
    assert error(with_image, truth) < 1.1 * error(without, truth)


def test_edges_of_the_image_alone_make_no_steps():
    """Stripes on a flat ground that the network knows well."""
    truth = (0.5 + 4.0 * RELATIVE).astype(np.float32)
    image = np.repeat((128 + 100 * np.sign(np.sin(U / 9)))[..., None], 3, 2).astype(np.uint8)
    sparse = draw_points(truth, 300, pattern="noise", seed=0)
    fit = ScaleAligner().update(RELATIVE, sparse, 0.0, rgb=image)
    assert error(fit, truth) < 0.01


def test_outliers_leave_little_mark():
    truth, image = scene((60, 40, 160))
    sparse = draw_points(truth, 500, pattern="random", seed=1)
    clean = error(ScaleAligner().update(RELATIVE, sparse, 0.0, rgb=image), truth)
    wrong = np.random.default_rng(2).choice(np.flatnonzero(np.isfinite(sparse)), 50, replace=False)
    sparse.flat[wrong] = np.random.default_rng(3).uniform(0.5, 10, 50)
    assert error(ScaleAligner().update(RELATIVE, sparse, 0.0, rgb=image), truth) < clean + 0.02


def test_a_tensor_gives_the_same_metres():
    truth, image = scene((60, 40, 160))
    fit = ScaleAligner().update(
        RELATIVE, draw_points(truth, 300, pattern="random", seed=0), 0.0, rgb=image
    )
    metric = fit.apply(torch.from_numpy(RELATIVE)).numpy()
    np.testing.assert_allclose(metric, fit.apply(RELATIVE), rtol=1e-5)


def test_the_image_must_be_of_the_same_size():
    truth, image = scene((60, 40, 160))
    with pytest.raises(ValueError, match="not of the size"):
        ScaleAligner().update(RELATIVE, truth, 0.0, rgb=image[:-1])


def test_more_points_leave_less_to_the_field():
    few, many = styles_for(20), styles_for(2000)
    assert len(few) == len(VARIANTS)
    assert few[0].field_weight > 5 * many[0].field_weight
    assert few[0].field_shape > many[0].field_shape
    assert few[2].field_shape == many[2].field_shape == 1.0


@pytest.mark.parametrize("shape", [(480, 640), (3, 500), (7, 9), (481, 639)])
@pytest.mark.parametrize("spacing", [3.0, 25.0, 200.0])
def test_cells_go_into_blocks_and_back(shape, spacing):
    cells = _Cells(shape, spacing)
    image = RNG.random((len(cells.rows), len(cells.columns))).astype(np.float32)
    blocks = cells.blocks(cells.pad(image)[None])[:, 0]
    np.testing.assert_array_equal(cells.image(blocks), image)
    rows = np.broadcast_to(cells.rows[:, None], image.shape).astype(np.float32)
    where = cells.centres[:, :1] + cells.offsets[0]
    at = cells.image(where)
    inner = slice(0, len(cells.rows) - 1)
    np.testing.assert_allclose(at[inner], rows[inner])

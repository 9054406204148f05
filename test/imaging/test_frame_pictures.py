"""Pictures for people: the point cloud's views, the pictures of a frame, and the contact sheet."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from d3_ros.imaging.cloud_view import on_surface, view_from_above, view_oblique
from d3_ros.imaging.cloud_viewer import LAYOUT, cloud_viewer
from d3_ros.imaging.contact_sheet import EDGE, contact_sheet
from d3_ros.imaging.drawing import BACKGROUND, panels
from d3_ros.imaging.frame_pictures import Cloud, frame_pictures, has_dots


def brightest(picture: np.ndarray, channel: int) -> tuple[int, int]:
    """(u, v) of the middle of the pixels in which one channel is 255 and the others 0."""
    others = [c for c in range(3) if c != channel]
    hit = (picture[..., channel] == 255) & (picture[..., others] == 0).all(axis=2)
    v, u = np.nonzero(hit)
    assert len(u), "the point is not in the picture"
    return int(u.mean()), int(v.mean())


def test_from_above_right_is_right_and_forward_is_up() -> None:
    # Red ahead on the left, green ahead on the right, blue farther away in the middle.
    xyz = np.array([[[-1, 0, 2], [1, 0, 2], [0, 0, 4]]], np.float32)
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    picture = view_from_above(xyz, rgb, 320, 240)
    red, green, blue = (brightest(picture, channel) for channel in range(3))
    assert red[0] < blue[0] < green[0]
    assert red[1] == green[1]
    assert blue[1] < red[1]
    # Equal scales: 2 m across are as many pixels as 2 m ahead.
    assert abs((green[0] - red[0]) - (red[1] - blue[1])) <= 2


def test_from_above_the_higher_point_covers_the_lower() -> None:
    xyz = np.array([[[0, -1, 2], [0, 1, 2], [1, 0, 3]]], np.float32)  # y is down
    rgb = np.array([[[255, 0, 0], [0, 0, 255], [0, 255, 0]]], np.uint8)
    for order in ([0, 1, 2], [1, 0, 2]):
        picture = view_from_above(xyz[:, order], rgb[:, order], 320, 240)
        brightest(picture, 0)
        with pytest.raises(AssertionError, match="not in the picture"):
            brightest(picture, 2)


def test_oblique_view_stands_upright_to_the_left() -> None:
    # A pole: red above blue. Green stands as far to the right and at the same height as red.
    xyz = np.array([[[0, -1, 4], [0, 1, 4], [2, -1, 4]]], np.float32)
    rgb = np.array([[[255, 0, 0], [0, 0, 255], [0, 255, 0]]], np.uint8)
    picture = view_oblique(xyz, rgb, 320, 240)
    red, green, blue = (brightest(picture, channel) for channel in range(3))
    assert red[1] < blue[1]
    assert green[0] > red[0]
    # From the left a near point lies to the right of a far one.
    near_far = np.array([[[0, 0, 3], [0, 0, 5], [0, 1, 4]]], np.float32)
    picture = view_oblique(near_far, rgb, 320, 240)
    assert brightest(picture, 0)[0] > brightest(picture, 2)[0]


def test_views_of_nothing_are_empty() -> None:
    nothing = np.full((2, 2, 3), np.nan, np.float32), np.zeros((2, 2, 3), np.uint8)
    for view in (view_from_above, view_oblique):
        assert (view(*nothing, 40, 30) == BACKGROUND).all()


def test_pictures_say_what_there_is() -> None:
    rgb = np.full((240, 320, 3), (200, 10, 10), np.uint8)
    metric = np.tile(np.linspace(1, 3, 320, dtype=np.float32), (240, 1))
    sensor = np.full((240, 320), np.nan, np.float32)
    sensor[120, 160] = 2.0
    truth = metric.copy()
    truth[120, 160] = np.nan
    normals = np.zeros((240, 320, 3), np.float32)
    normals[..., 2] = -1
    cloud = Cloud(np.array([[[0, 0, 2.0]]], np.float32), np.array([[[9, 9, 9]]], np.uint8))
    everything = frame_pictures(
        rgb,
        given=sensor,
        truth=truth,
        depths={"depth": metric},
        relative=metric / 4,
        normals={"normals": normals},
        cloud=cloud,
    )
    assert list(everything) == [
        "camera, dots: depth given",
        "depth",
        "measured depth",
        "error of depth",
        "normals",
        "cloud from above",
        "cloud, oblique",
    ]
    assert all(p.shape[0] == 480 and p.dtype == np.uint8 for p in everything.values())
    camera = everything["camera, dots: depth given"]
    assert camera[10, 10].tolist() == [200, 10, 10]
    assert camera[241, 321].tolist() == [90, 255, 90], "the given point's dot"
    assert everything["normals"][5, 5].tolist() == [128, 128, 255]
    # Near is bright: the left of the picture. Depth and its truth have the same colours.
    assert everything["depth"][200, 20].sum() > everything["depth"][200, 600].sum()
    np.testing.assert_array_equal(
        everything["depth"][50, 100:600], everything["measured depth"][50, 100:600]
    )
    assert everything["error of depth"][50, 100].sum() < 10, "no error is dark"
    assert panels(everything).shape[1] == 3 * 404
    assert list(frame_pictures(rgb, relative=metric / 4)) == ["camera", "relative depth, no scale"]


def test_few_points_are_dots_and_none_or_many_are_not() -> None:
    few, many = np.full((2, 24, 32), np.nan, np.float32)
    few[3, 3] = 1.0
    many[:, :16] = 1.0
    assert has_dots(few)
    assert not has_dots(many)
    assert not has_dots(np.full((24, 32), np.nan, np.float32))
    assert not has_dots(None)


def slanted(near: float, far: float) -> np.ndarray:
    """(24, 64, 3) points of two walls, `near` on the left, `far` on the right, blurred between."""
    z = np.full((24, 64), near, np.float32)
    z[:, 28:] = far
    z[:, 28:36] = np.linspace(near, far, 8)
    v, u = np.mgrid[0:24, 0:64]
    return np.stack([(u - 32) / 64 * z, (v - 12) / 64 * z, z], axis=2).astype(np.float32)


def test_flying_points_are_not_drawn() -> None:
    drawn = on_surface(slanted(1.0, 6.0))
    assert drawn[:, :27].all()
    assert drawn[:, 37:].all()
    assert not drawn[:, 29:35].any()
    assert on_surface(slanted(2.0, 2.0)).all()


def test_a_far_floor_is_a_surface() -> None:
    """1 m below the camera, to 12 m ahead."""
    v, u = np.mgrid[0:100, 0:160].astype(np.float32)
    z = 100 / (v + 100 / 12)
    floor = np.stack([(u - 80) / 100 * z, np.ones_like(z), z], axis=2)
    assert on_surface(floor).all()


def test_a_surface_has_no_gaps() -> None:
    """A bare wall near the viewer covers its part of the picture without moire."""
    v, u = np.mgrid[0:120, 0:160].astype(np.float32)
    xyz = np.stack([(u - 80) / 80, (v - 60) / 80, np.ones_like(u)], axis=2)
    rgb = np.full((*xyz.shape[:2], 3), (250, 10, 10), np.uint8)
    picture = view_oblique(xyz, rgb, 640, 480)
    middle = picture[200:280, 280:360]
    assert (middle == (250, 10, 10)).all()


# ----------------------------------------------------------------------------------- contact sheet


def test_the_overlay_shows_where_depth_has_its_edges() -> None:
    rgb = np.full((240, 320, 3), 200, np.uint8)
    depth = np.full((240, 320), 4.0, np.float32)
    depth[60:180, 100:200] = 1.0
    sheet = contact_sheet([("one", rgb, depth)], 1.0, 4.0)
    overlay = sheet[20:260, 640:960]
    green = (overlay == EDGE).all(axis=2)
    assert green[120, 98:101].any()
    assert green[120, 198:201].any()
    assert not green[120, 110:190].any()
    assert (overlay[10, 10] == 100).all(), "the image, dimmed"


def test_frames_with_dense_and_with_sparse_depth_share_a_sheet() -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    sparse = np.full((48, 64), np.nan, np.float32)
    sparse[24, 32] = 1.0
    dense = np.full((48, 64), 2.0, np.float32)
    sheet = contact_sheet([("a", rgb, sparse), ("b", rgb, dense), ("c", rgb, sparse)], 1.0, 2.0)
    assert sheet.shape == (2 * 260, 2 * 964, 3)


# ------------------------------------------------------------------------------------ cloud viewer


def test_the_viewer_holds_every_point() -> None:
    xyz = slanted(2.0, 2.0)
    xyz[0, 0] = np.nan
    rgb = np.zeros((*xyz.shape[:2], 3), np.uint8)
    rgb[1, 2] = (1, 2, 3)
    page = cloud_viewer(xyz, rgb, "a <cloud>")
    assert "a &lt;cloud&gt;" in page
    found = re.search(r'data-points="([^"]+)" data-unit="([^"]+)"', page)
    assert found is not None
    rows = np.frombuffer(base64.b64decode(found[1]), LAYOUT)
    assert len(rows) == 24 * 64 - 1
    at = 64 + 2 - 1
    np.testing.assert_allclose(rows["xyz"][at] * float(found[2]), xyz[1, 2], atol=1e-4)
    assert rows["rgb"][at].tolist() == [1, 2, 3]

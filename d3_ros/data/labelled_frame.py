"""A labelled frame, and crops, mirrors and resizes under which its labels stay true.

Mirroring changes the sign of the normals' x and moves the principal point; a crop moves the
principal point; resizing scales the camera with half-pixel centres. After each of them, depth,
normals and camera still agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from d3_ros.geometry.normals import normals_from_depth
from d3_ros.types import CameraIntrinsics

QUANTILES = (0.02, 0.98)  # of the valid depth: these become the ends of the target
MIN_SPAN_M = 1e-3
# Depth known at fewer pixels than this share is sparse: its points are moved, not sampled.
SPARSE_SHARE = 0.2


@dataclass(frozen=True)
class LabelledFrame:
    """An image and what is known of it.

    rgb: (H, W, 3) uint8, or float32 in [0, 1].
    depth: (h, w) float32 z-depth in metres, 0 = not known; or None. Before a frame is cropped, it
        must have labels of the image's size, (h, w) = (H, W).
    normals: (h, w, 3) float32 unit vectors in the optical frame, (0, 0, 0) = not known; or None.
    camera: of the image, or None.
    caption: a description of the picture, or None.
    target: (h, w) float32 depth target in [-1, 1] that was stored beside the depth, or None.
    given: by name, sparse depth (H, W) float32 metres, NaN = none, that comes with the frame.

    Crops, mirrors and resizes keep `rgb`, `depth`, `normals`, `camera` and `caption`; they drop
    `target` and `given`.
    """

    rgb: np.ndarray
    depth: np.ndarray | None
    normals: np.ndarray | None
    camera: CameraIntrinsics | None
    caption: str | None = None
    target: np.ndarray | None = None
    given: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def label_size(self) -> tuple[int, int]:
        """(h, w) of the labels; the frame must have depth or normals."""
        label = self.normals if self.depth is None else self.depth
        assert label is not None
        return label.shape[0], label.shape[1]

    def cropped(self, x: int, y: int, width: int, height: int) -> LabelledFrame:
        """The part of `width` x `height` pixels whose upper left pixel is (x, y)."""
        window = (slice(y, y + height), slice(x, x + width))
        camera = self.camera and replace(
            self.camera,
            width=width,
            height=height,
            cx=self.camera.cx - x,
            cy=self.camera.cy - y,
        )
        return LabelledFrame(
            self.rgb[window],
            _part(self.depth, window),
            _part(self.normals, window),
            camera,
            self.caption,
        )

    def mirrored(self) -> LabelledFrame:
        """Left and right swapped."""
        camera = self.camera and replace(
            self.camera,
            cx=self.camera.width - 1 - self.camera.cx,
            distortion=_mirrored_lens(self.camera),
        )
        normals = None
        if self.normals is not None:
            normals = self.normals[:, ::-1] * np.array((-1, 1, 1), np.float32)
        depth = None if self.depth is None else self.depth[:, ::-1]
        return LabelledFrame(self.rgb[:, ::-1], depth, normals, camera, self.caption)

    def resized(self, height: int, width: int) -> LabelledFrame:
        """At another size. The image is interpolated (bilinear, no antialias: as at inference).

        Labels are never mixed across edges. Dense labels: each pixel takes the label of the nearest
        pixel. Sparse depth: each point goes to the pixel that it falls into; of several points on
        one pixel, the one with the smallest depth stays.
        """
        depth, normals = self.depth, self.normals
        if depth is not None:
            if np.count_nonzero(depth) < SPARSE_SHARE * depth.size:
                depth = _moved_points(depth, height, width)
            else:
                depth = _nearest(depth, height, width)
        if normals is not None:
            normals = _nearest(normals, height, width)
        rgb = cv2.resize(np.ascontiguousarray(self.rgb), (width, height))
        camera = self.camera and self.camera.resized(width, height)
        return LabelledFrame(rgb, depth, normals, camera, self.caption)

    def with_derived_normals(self, share: int = 128) -> LabelledFrame:
        """The frame with normals computed from its depth and camera, which have one size.

        Neighbouring pixels of measured depth are too noisy, so points that are apart by the image's
        width divided by `share` are compared.
        """
        assert self.depth is not None
        assert self.camera is not None
        step = max(2, self.camera.width // share)
        normals = normals_from_depth(np.ascontiguousarray(self.depth), self.camera, step)
        known = np.isfinite(normals).all(axis=2, keepdims=True)
        return replace(self, normals=np.where(known, normals, 0).astype(np.float32))


def depth_target(depth: np.ndarray, share: float = 1.0) -> np.ndarray:
    """(h, w) metres, 0 = not known, to the network's target, (h, w) float32 in [-1, 1].

    The 2 % and 98 % quantiles of the known pixels become -`share` and +`share`.
    """
    known = depth > 0
    if not known.any():
        return np.zeros(depth.shape, np.float32)
    near, far = np.quantile(depth[known], QUANTILES)
    span = max(float(far - near), MIN_SPAN_M)
    return np.clip(((depth - near) / span * 2 - 1) * share, -1, 1).astype(np.float32)


def _mirrored_lens(camera: CameraIntrinsics) -> tuple[float, ...]:
    """Distortion of the mirrored lens: terms that act along x change sign, radial terms do not."""
    if camera.distortion_model not in ("plumb_bob", "rational_polynomial"):
        return camera.distortion
    along_x = (3, 8, 9, 13)  # p2, s1, s2, tilt about y
    return tuple(-c if i in along_x else c for i, c in enumerate(camera.distortion))


def _part(array: np.ndarray | None, window: tuple[slice, slice]) -> np.ndarray | None:
    return None if array is None else array[window]


def _nearest(array: np.ndarray, height: int, width: int) -> np.ndarray:
    if array.shape[:2] == (height, width):
        return array
    # The pixel that holds the centre of the new one; OpenCV's nearest takes one to its upper left.
    rows = ((np.arange(height) + 0.5) * array.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * array.shape[1] / width).astype(np.intp)
    return array[rows].take(columns, axis=1)


def _moved_points(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    if depth.shape == (height, width):
        return depth
    v, u = np.nonzero(depth)
    rows = ((v + 0.5) * height / depth.shape[0]).astype(np.intp)
    columns = ((u + 0.5) * width / depth.shape[1]).astype(np.intp)
    placed = np.full((height, width), np.inf, np.float32)
    np.minimum.at(placed, (rows, columns), depth[v, u])
    return np.where(np.isinf(placed), np.float32(0), placed)

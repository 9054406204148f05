"""From relative depth to metres for a whole image: global fit, local correction, detail."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.geometry.alignment.global_fit.domain import GlobalFit
from d3_ros.geometry.alignment.local.correction_field import CorrectionField
from d3_ros.geometry.alignment.local.detail import Detail
from d3_ros.geometry.alignment.local.reach import Reach
from d3_ros.geometry.alignment.numerics import (
    FARTHEST_UNSATURATED,
    LEAST_AFFINE,
    LEAST_METRES,
    NEAREST_UNSATURATED,
)
from d3_ros.geometry.alignment.parallel import in_image_bands


@dataclass(frozen=True)
class MetricMap:
    """What `DepthFit.to_metres` holds: callable, (H, W) relative depth to (H, W) float32 metres.

    NaN where relative depth is saturated or not finite, and where the global fit has no depth (zero
    or behind the camera) or one beyond `max_depth`.
    Field and detail together change log depth by at most `bound`, and away from the points by as
    much as `reach` leaves of it (None: all).
    """

    fit: GlobalFit
    field: CorrectionField | None
    detail: Detail | None
    bound: float
    max_depth: float
    reach: Reach | None = None

    def log_depth(
        self, relative: np.ndarray, top: int = 0, height: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Relative depth (h, W) to two arrays of log metres: by the fit alone, and with the field.

        Args:
            relative: of an image, or of a band of one.
            top: the image's row that is the band's first.
            height: of the image, if this is only a band of it.
        """
        by_fit = relative * np.float32(self.fit.affine.scale)
        by_fit += np.float32(self.fit.affine.shift)
        if self.fit.domain != "log":
            # A value <= 0 becomes the nearest depth, in the domain of disparity the farthest.
            np.maximum(by_fit, np.float32(LEAST_AFFINE), out=by_fit)
            by_fit = np.asarray(cv2.log(by_fit, dst=by_fit))
            if self.fit.domain == "disparity":
                np.negative(by_fit, out=by_fit)
        if self.fit.limit is not None:
            by_fit = self.fit.limit.apply(by_fit)
        if self.field is None:
            return by_fit, by_fit
        corrected = self.field.at(by_fit, top, height)
        corrected += by_fit
        return by_fit, corrected

    def __call__(self, relative: np.ndarray) -> np.ndarray:
        """Metres of an image of relative depth; of a torch tensor, on its device."""
        if not isinstance(relative, np.ndarray):
            # Only a caller with a tensor needs torch; an ONNX robot does not have it.
            from d3_ros.geometry.alignment.metric_tensor import metres

            return metres(
                relative, self.fit, self.field, self.detail, self.bound, self.max_depth, self.reach
            )
        height = len(relative)
        metric = np.empty(relative.shape, np.float32)

        def fill(rows: slice) -> None:
            metric[rows] = self.band(relative, rows)

        in_image_bands(fill, height, relative.shape[1])
        return metric

    def band(self, image: np.ndarray, rows: slice) -> np.ndarray:
        """Metres of some rows of an image of relative depth (H, W)."""
        relative, top = image[rows], rows.start
        by_fit, corrected = self.log_depth(relative, top, len(image))
        if self.detail is not None:
            offset, weight = self.detail.maps(top, *relative.shape)
            change = offset + corrected
            change -= by_fit
            if weight is not None:
                change -= weight * corrected
            np.clip(change, -self.bound, self.bound, out=change)
            change += by_fit
            corrected = change
        if self.reach is not None:
            share = self.reach.within(top, *relative.shape)
            if share is not None:
                corrected = by_fit + share * (corrected - by_fit)
        metric = np.asarray(cv2.exp(corrected))
        trusted = _between(relative, NEAREST_UNSATURATED, FARTHEST_UNSATURATED)
        trusted &= _between(metric, LEAST_METRES, self.max_depth)
        np.putmask(metric, trusted == 0, np.float32(np.nan))
        return metric


def _between(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """(H, W) uint8, 0 where the image is outside the limits or NaN."""
    return np.asarray(cv2.inRange(image, np.array([low]), np.array([high])))

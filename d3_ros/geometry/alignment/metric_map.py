"""From relative depth to metres for a whole image: global fit, local correction, detail."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.geometry.alignment.correction import CorrectionField
from d3_ros.geometry.alignment.detail import Detail
from d3_ros.geometry.alignment.domain import GlobalFit


@dataclass(frozen=True)
class MetricMap:
    """What `DepthFit.to_metres` holds: callable, (H, W) relative depth to (H, W) float32 metres.

    NaN where the global fit has no depth (zero or behind the camera) or one beyond `max_depth`.
    Field and detail together change log depth by at most `bound`.
    """

    fit: GlobalFit
    field: CorrectionField | None
    detail: Detail | None
    bound: float
    max_depth: float

    def log_depth(self, relative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log of metres by the global fit, and with the field, of (H, W) relative depth."""
        value = relative * np.float32(self.fit.affine.scale) + np.float32(self.fit.affine.shift)
        if self.fit.domain == "log":
            by_fit = value
        else:
            by_fit = np.asarray(cv2.log(np.where(value > 0, value, np.float32(np.nan))))
            if self.fit.domain == "disparity":
                by_fit = -by_fit
        return by_fit, by_fit if self.field is None else by_fit + self.field.at(by_fit)

    def __call__(self, relative: np.ndarray) -> np.ndarray:
        """Metres of an image of relative depth."""
        by_fit, corrected = self.log_depth(relative)
        if self.detail is not None:
            offset, weight = self.detail.maps(*relative.shape)
            corrected = offset + (corrected if weight is None else (1.0 - weight) * corrected)
            bound = np.float32(self.bound)
            corrected = np.minimum(np.maximum(corrected, by_fit - bound), by_fit + bound)
        metric = np.asarray(cv2.exp(corrected))
        metric[~(metric < np.float32(self.max_depth))] = np.nan
        return metric

"""From relative depth to metres for a whole image: global fit, then local correction."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from d3_ros.geometry.alignment.correction import CorrectionField
from d3_ros.geometry.alignment.domain import GlobalFit


@dataclass(frozen=True)
class MetricMap:
    """What `DepthFit.to_metres` holds: callable, (H, W) relative depth to (H, W) float32 metres.

    NaN where the global fit has no depth (zero or behind the camera) or one beyond `max_depth`.
    """

    fit: GlobalFit
    field: CorrectionField | None
    max_depth: float

    def __call__(self, relative: np.ndarray) -> np.ndarray:
        """Metres of an image of relative depth."""
        value = relative * np.float32(self.fit.affine.scale) + np.float32(self.fit.affine.shift)
        # As log depth in every domain; NaN where the logarithm has none.
        if self.fit.domain == "log":
            log_depth = np.asarray(value)
        else:
            log_depth = np.asarray(cv2.log(np.maximum(value, np.float32(1e-9))))
            if self.fit.domain == "disparity":
                log_depth = -log_depth
        corrected = log_depth
        if self.field is not None:
            corrected = log_depth + self.field.at(log_depth)
        metric = cv2.exp(corrected)
        known = metric < np.float32(self.max_depth)
        if self.fit.domain != "log":
            known &= value > 0
        trusted = np.full_like(metric, np.nan)
        cv2.copyTo(metric, known.view(np.uint8), trusted)
        return trusted

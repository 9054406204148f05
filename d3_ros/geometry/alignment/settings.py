"""Every threshold of the scale alignment, with unit, range and meaning in one place.

The node declares its parameters from these fields, so there is no second default anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


def _setting(default: Any, text: str, low: float, high: float, unit: str = "") -> Any:
    return field(default=default, metadata={"text": text, "low": low, "high": high, "unit": unit})


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of `ScaleAligner`; each field's metadata has text, unit and range (low, high).

    Raises:
        ValueError: a value is outside its range, or a minimum is above its maximum.
    """

    min_depth: float = _setting(0.1, "sensor depth below this is not used", 0.0, 100.0, "m")
    max_depth: float = _setting(80.0, "sensor depth above this is not used", 0.1, 1000.0, "m")
    min_points: int = _setting(8, "fewest usable sensor points for a fit", 3, 100000, "points")
    max_points: int = _setting(
        450,
        "points that the fit looks at; more are thinned evenly over the image",
        10,
        2000,
        "points",
    )
    min_relative_spread: float = _setting(
        0.02,
        "smallest 5 % to 95 % span of relative depth over the points",
        0.0001,
        1.0,
    )
    inlier_tolerance: float = _setting(
        0.3, "largest |fit - sensor| / sensor of a point that agrees with the fit", 0.01, 2.0
    )
    min_inlier_ratio: float = _setting(
        0.6, "smallest share of points that agree with the fit", 0.1, 1.0
    )
    held_out_share: float = _setting(
        0.1, "share of the points kept out of the fit to measure its error", 0.0, 0.5
    )
    local_correction: bool = _setting(
        True, "bend the global fit to the points by a smooth local field", False, True
    )
    max_correction: float = _setting(
        4.0, "largest local correction, as a share of the depth", 0.0, 10.0
    )
    domain_hysteresis: float = _setting(
        0.1, "share by which another domain must predict better before it takes over", 0.0, 1.0
    )
    smoothing: float = _setting(
        0.9, "memory of the scale from frame to frame; 0 = every frame by itself", 0.0, 0.99
    )
    scale_step: float = _setting(
        0.05, "relative change of the scale that is followed at once", 0.0, 1.0
    )
    hold_s: float = _setting(
        2.0, "how long the last fit is used without new sensor depth", 0.0, 3600.0, "s"
    )
    hold_correction_s: float = _setting(
        0.15, "how long the local correction is used without new sensor depth", 0.0, 3600.0, "s"
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, low, high = (
                getattr(self, entry.name),
                entry.metadata["low"],
                entry.metadata["high"],
            )
            if not low <= value <= high:
                unit = f" {entry.metadata['unit']}" if entry.metadata["unit"] else ""
                raise ValueError(f"{entry.name} must be in [{low:g}, {high:g}]{unit}, got {value}")
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be below max_depth {self.max_depth}")

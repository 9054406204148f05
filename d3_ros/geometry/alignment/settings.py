"""Every threshold of the scale alignment, with unit, range and meaning in one place.

The node declares its parameters from these fields, so there is no second default anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from d3_ros.settings import setting


@dataclass(frozen=True)
class AlignmentSettings:
    """Settings of `ScaleAligner`; each field's metadata has text, unit and range (low, high).

    Raises:
        ValueError: a value is outside its range, or a minimum is above its maximum.
    """

    min_depth: float = setting(0.1, "Sensor depth below this is not used", 0.0, 100.0, "m")
    max_depth: float = setting(80.0, "Sensor depth above this is not used", 0.1, 1000.0, "m")
    min_points: int = setting(8, "Fewest usable sensor points for a fit", 3, 100000, "points")
    max_points: int = setting(
        450,
        "Points that the fit looks at; more are thinned evenly over the image",
        10,
        2000,
        "points",
    )
    min_relative_spread: float = setting(
        0.02,
        "Smallest 5 % to 95 % span of relative depth over the points for a slope to be fitted",
        0.0001,
        1.0,
    )
    inlier_tolerance: float = setting(
        0.3, "Largest |fit - sensor| / sensor of a point that agrees with the fit", 0.01, 2.0
    )
    min_inlier_ratio: float = setting(
        0.6, "Smallest share of points that agree with the fit", 0.1, 1.0
    )
    held_out_share: float = setting(
        0.1, "Share of the points kept out of the fit to measure its error", 0.0, 0.5
    )
    local_correction: bool = setting(
        True, "Bend the global fit to the points by a smooth local field"
    )
    max_correction: float = setting(
        4.0, "Largest local correction, as a share of the depth", 0.0, 10.0
    )
    domain_hysteresis: float = setting(
        0.1, "Share by which another domain must predict better before it takes over", 0.0, 1.0
    )
    smoothing: float = setting(
        0.9, "Memory of the scale from frame to frame; 0 = every frame by itself", 0.0, 0.99
    )
    scale_step: float = setting(
        0.05, "Relative change of the scale that is followed at once", 0.0, 1.0
    )
    hold_s: float = setting(
        2.0, "How long the last fit is used without new sensor depth", 0.0, 3600.0, "s"
    )
    hold_correction_s: float = setting(
        0.15, "How long the local correction is used without new sensor depth", 0.0, 3600.0, "s"
    )

    carry_age_s: float = setting(
        1.0,
        "How long a measured point is carried into later images by the camera's known motion; "
        "0: not at all",
        0.0,
        60.0,
        "s",
    )
    carry_points: int = setting(
        450, "Most points of earlier images that are carried into one", 10, 2000, "points"
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            if fault := entry.metadata["setting"].fault(getattr(self, entry.name)):
                raise ValueError(f"{entry.name} {fault}")
        if self.min_depth >= self.max_depth:
            raise ValueError(f"min_depth {self.min_depth} must be below max_depth {self.max_depth}")

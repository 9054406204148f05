"""The verdict on an extrinsic calibration in sentences."""

from __future__ import annotations

import numpy as np

from d3_ros.geometry.extrinsics.check import (
    MAX_SHIFT_M,
    MAX_TURN_DEG,
    MIN_EDGES,
    MIN_FRAMES,
    ExtrinsicsCheck,
)
from d3_ros.geometry.rigid import quaternion_of

# Where the error lies when the correction is positive, and when it is negative: turns about x, y
# and z of the optical frame, then shifts along x and y.
ERRORS = (
    ("down", "up"),
    ("to the left", "to the right"),
    ("anticlockwise", "clockwise"),
    ("to the left", "to the right"),
    ("up", "down"),
)
RECORD = (
    "record one or two minutes with things at different distances in view (chairs, poles, people, "
    "door frames), in good light, standing still or moving slowly"
)


def verdict_line(check: ExtrinsicsCheck) -> str:
    """The verdict in one line."""
    if check.verdict == "off":
        at_least = "at least " if check.at_limit else ""
        line = f"off by about {at_least}{error_in_words(check.offset, check.spread)}"
        if any(check.alternative):
            line += f"; {error_in_words(check.alternative)} would explain it almost as well"
        return line
    if check.verdict == "right":
        within = max(check.uncertainty_deg, check.tolerance_deg)
        return f"right, within about {within:.1f} degrees{_unseen(check)}"
    if check.frames < MIN_FRAMES or check.edges < MIN_EDGES:
        return (
            f"cannot tell: {check.edges} depth edges in {check.frames} frames, at least "
            f"{MIN_EDGES} in {MIN_FRAMES} are needed"
        )
    if not any(check.axes):
        return "cannot tell: the depth edges are too faint"
    if check.shift_deg > max(check.tolerance_deg, check.uncertainty_deg):
        guess = error_in_words(check.offset, check.spread)
        return f"cannot tell: it may be off by {guess}, but too few edges agree"
    return (
        f"cannot tell: the edges settle the direction to {check.uncertainty_deg:.1f} degrees only"
    )


def verdict_lines(check: ExtrinsicsCheck, T_camera_sensor: np.ndarray) -> list[str]:  # noqa: N803
    """The report of a check for people; `T_camera_sensor` is the (4, 4) that was checked."""
    lines = [f"{check.edges} depth edges in {check.frames} frames"]
    if np.isfinite(check.score):
        lines.append(
            f"score {check.score:.2f} (1: the calibration fits best; 0: no better than by chance; "
            "a right calibration usually has 0.9 or more)"
        )
    lines.append(f"extrinsics: {verdict_line(check)}")
    if check.verdict == "unclear":
        lines.append(RECORD)
    if check.verdict == "off":
        better = check.corrected(T_camera_sensor)
        numbers = (*better[:3, 3], *quaternion_of(better[:3, :3]))
        lines.append(
            "what fits best (T_camera_sensor as x y z qx qy qz qw): "
            + " ".join(f"{number:.5f}" for number in numbers)
        )
        lines.append(
            f"searched: {MAX_TURN_DEG:g} degrees, {100 * MAX_SHIFT_M:g} cm; check again with "
            "--extrinsics and these numbers before you use them"
        )
    return lines


def error_in_words(offset: tuple[float, ...], spread: tuple[float, ...] = (0.0,) * 6) -> str:
    """An error of which (6,) `offset` is the correction; parts within their error are left out."""
    parts = []
    for axis, (positive, negative) in enumerate(ERRORS):
        value, error = offset[axis], spread[axis]
        if value == 0 or abs(value) < max(2 * error, 0.3 * max(map(abs, offset))):
            continue
        where = positive if value > 0 else negative
        unit, scale = ("degrees", np.degrees(1.0)) if axis < 3 else ("cm", 100.0)
        amount = f"{abs(value) * scale:.1f}"
        if error:
            amount += f" ± {max(error * scale, 0.1):.1f}"
        verb = "turned" if axis < 2 else "rolled" if axis == 2 else "shifted"
        parts.append(f"{amount} {unit} ({verb} {where})")
    return " and ".join(parts) or "less than its own uncertainty"


def _unseen(check: ExtrinsicsCheck) -> str:
    if all(check.axes):
        return ""
    seen, unseen = ("sideways", "up and down") if check.axes[0] else ("up and down", "sideways")
    return f", {seen} (too few edges to check {unseen})"

"""What counts as nothing, the same wherever relative depth becomes metres."""

from __future__ import annotations

# Value of the affine map, and metres, below which there is nothing.
NOTHING, LEAST_METRES = 1e-9, 1e-4
# Relative depth at 0 and 1 is saturated; these are the first and the last that are not.
NEAREST_UNSATURATED, FARTHEST_UNSATURATED = 2.0**-24, 1.0 - 2.0**-24

"""Prior covariances of what the global fit leaves over, as functions of image and depth.

The residual in log depth is the sum of a curve over depth alone, which straightens what an affine
map cannot, and of local fields over the image that fade with the difference in depth, so that they
do not reach across depth edges: a smooth one (Matern 3/2) and a rough one (Matern 1/2, the
exponential kernel, whose mean runs nearly straight from point to point).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

# So many rows of a covariance at once, which stay in the processor's cache.
BLOCK = 64


@dataclass(frozen=True)
class Features:
    """Where points are: `position` (N, 2) in units of the image's longer side, `log_depth`
    (N,) of the global fit."""

    position: np.ndarray
    log_depth: np.ndarray

    def __len__(self) -> int:
        return len(self.log_depth)

    def __getitem__(self, index: np.ndarray | slice) -> Features:
        return Features(self.position[index], self.log_depth[index])


@dataclass(frozen=True)
class LocalField:
    """A field's size `sigma` (log depth; 0.1 is about 10 %) and its correlation lengths.

    `width` is in units of the image's longer side, `depth` in log depth."""

    rough: bool
    sigma: float
    width: float
    depth: float


@dataclass(frozen=True)
class Prior:
    """What the residual may look like.

    `curve_sigma`, `curve_depth`: size and reach (both log depth) of the curve over depth alone.
    `tilt_sigma` is that of a line over log depth, which can undo the global fit's slope.
    """

    curve_sigma: float
    curve_depth: float
    tilt_sigma: float
    fields: tuple[LocalField, ...]

    def variance(self, log_depth: np.ndarray) -> np.ndarray:
        """(N,) prior variance of the residual at these log depths."""
        constant = self.curve_sigma**2 + sum(field.sigma**2 for field in self.fields)
        return constant + (self.tilt_sigma * log_depth) ** 2


# For a network that is nearly right, and for one that is hardly better than the points alone,
# between which the second interpolates.
PRIORS = (
    Prior(0.3, 0.5, 0.0, (LocalField(False, 0.15, 0.4, 0.5), LocalField(True, 0.1, 1.0, 1.0))),
    Prior(0.3, 0.5, 0.5, (LocalField(True, 0.5, 1.0, 1.0),)),
)


def curve_kernel(prior: Prior, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Covariance of curve and tilt between log depths, (len(a), len(b)) float32."""
    # Single precision: the exponentials are four times faster, and the noise is far above it.
    curve = _squared_exponential(a, b, prior.curve_depth)
    curve *= np.float32(prior.curve_sigma**2)
    if prior.tilt_sigma > 0:
        curve += _tilt(prior, a, b)
    return curve


def depth_factor(field: LocalField, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The field's correlation between log depths, (len(a), len(b)) float32."""
    return _squared_exponential(a, b, field.depth)


def image_kernel(field: LocalField, distance: np.ndarray) -> np.ndarray:
    """The field's covariance at distances over the image (in widths), same shape, float32."""
    scaled = distance * np.float32(-_decay(field))
    covariance = cv2.exp(scaled)
    if not field.rough:
        np.subtract(covariance, np.multiply(scaled, covariance, out=scaled), out=covariance)
    return np.multiply(covariance, np.float32(field.sigma**2), out=covariance)


def image_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(len(a), len(b)) float32 distances between image positions (N, 2)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    squared = np.square(a[:, None, 0] - b[None, :, 0])
    squared += np.square(a[:, None, 1] - b[None, :, 1])
    return np.asarray(cv2.sqrt(squared, dst=squared))


def grid_distance(columns: np.ndarray, rows: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`image_distance` of the nodes of a grid to positions, (rows * columns, len(b))."""
    across = np.square(columns.astype(np.float32)[:, None] - b[:, 0].astype(np.float32))
    along = np.square(rows.astype(np.float32)[:, None] - b[:, 1].astype(np.float32))
    squared = (along[:, None] + across[None]).reshape(-1, len(b))
    return np.asarray(cv2.sqrt(squared, dst=squared))


def kernel(prior: Prior, a: Features, b: Features) -> np.ndarray:
    """Prior covariance of the residual at two sets of points, (len(a), len(b)) float32."""
    apart = _squared_differences(a.log_depth, b.log_depth)
    covariance = _exp(apart * np.float32(-0.5 / prior.curve_depth**2))
    covariance *= np.float32(prior.curve_sigma**2)
    if prior.tilt_sigma > 0:
        covariance += _tilt(prior, a.log_depth, b.log_depth)
    distance = image_distance(a.position, b.position)
    for field in prior.fields:
        # As image_kernel times depth_factor, with one exponential for both.
        scaled = distance * np.float32(-_decay(field))
        both = _exp(apart * np.float32(-0.5 / field.depth**2) + scaled)
        both *= np.float32(field.sigma**2)
        covariance += both
        if not field.rough:
            both *= scaled
            covariance -= both
    return covariance


def upper_covariance(prior: Prior, features: Features) -> np.ndarray:
    """(N, N) float64 prior covariance of N points; zero in places below the diagonal.

    The blocks on the diagonal are whole, so that only few of them are computed for nothing.
    """
    count = len(features)
    covariance = np.zeros((count, count))
    for top in range(0, count, BLOCK):
        rows = slice(top, top + BLOCK)
        covariance[rows, top:] = kernel(prior, features[rows], features[top:])
    return covariance


def _decay(field: LocalField) -> float:
    """How fast the field's correlation falls, per unit of position."""
    return (1.0 if field.rough else 3.0**0.5) / field.width


def _tilt(prior: Prior, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.outer((a * prior.tilt_sigma**2).astype(np.float32), b.astype(np.float32))


def _squared_exponential(a: np.ndarray, b: np.ndarray, reach: float) -> np.ndarray:
    squared = _squared_differences(a, b)
    squared *= np.float32(-0.5 / reach**2)
    return _exp(squared)


def _exp(values: np.ndarray) -> np.ndarray:
    """In its place; four times faster than NumPy's."""
    return np.asarray(cv2.exp(values, dst=values))


def _squared_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = a.astype(np.float32)[:, None] - b.astype(np.float32)[None, :]
    return np.multiply(difference, difference, out=difference)

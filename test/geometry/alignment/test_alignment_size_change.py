"""Images whose size changes: what is held and what is smoothed belongs to images of one size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from d3_ros.geometry.alignment import ScaleAligner

WIDTH, HEIGHT = 160, 120


def scene(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative depth, and metres that no affine map of it gives."""
    v, u = np.mgrid[:height, :width].astype(np.float32)
    v, u = v / height, u / width
    relative = 0.1 + 0.8 * v
    metres = (4.0 * relative + 0.5) * (1.0 + 0.3 * np.sin(5.0 * u) * np.cos(5.0 * v))
    return relative.astype(np.float32), metres.astype(np.float32)


def sparse_of(metres: np.ndarray) -> np.ndarray:
    sparse = np.full(metres.shape, np.nan, np.float32)
    sparse[::6, ::6] = metres[::6, ::6]
    return sparse


@pytest.mark.parametrize("size", [(240, 180), (80, 60), (120, 160), (200, 60)])
def test_a_fit_is_held_without_the_correction_of_another_size(size: tuple[int, int]) -> None:
    """Held pixel by pixel, a correction would lie on other things, or fail on larger images."""
    aligner = ScaleAligner()
    relative, metres = scene(WIDTH, HEIGHT)
    corrected = aligner.update(relative, sparse_of(metres), 1.0)
    assert np.abs(corrected.apply(relative) / metres - 1).mean() < 0.02
    other, _ = scene(*size)
    held = aligner.update(other, None, 1.1)
    assert held.state == "held"
    sigma = held.sigma(other)
    assert np.isfinite(sigma[np.isfinite(held.apply(other))]).all()
    assert np.median(sigma) > np.median(corrected.sigma(relative)), "without its correction"
    same = ScaleAligner(local_correction=False).update(relative, sparse_of(metres), 1.0)
    expected = same.apply(cv2.resize(other, (WIDTH, HEIGHT)))
    found = cv2.resize(held.apply(other), (WIDTH, HEIGHT))
    assert np.nanmedian(np.abs(found / expected - 1)) < 0.03


def test_the_scale_follows_a_change_of_size_within_the_frame() -> None:
    """A step of 4 % in an image of the same size is averaged away over several frames."""
    aligner = ScaleAligner(local_correction=False)
    for k in range(10):
        relative, _ = scene(WIDTH, HEIGHT)
        noise = 1 + 0.02 * np.random.default_rng(k).standard_normal(relative.shape)
        aligner.update(relative, sparse_of((4.0 * relative + 0.5) * noise).astype(np.float32), k)
    relative, _ = scene(80, 60)
    metres = 1.04 * (4.0 * relative + 0.5)
    fit = aligner.update(relative, sparse_of(metres), 10.0)
    np.testing.assert_allclose(fit.apply(relative), metres, rtol=2e-3)

"""Augmentation of the picture alone: what changes, and what must stay."""

from __future__ import annotations

import numpy as np

from d3_ros.training.loading.augment import filtered, relit


def picture() -> np.ndarray:
    """A bright disc on a dark ground with fine texture, (48, 64, 3) float32 in [0, 1]."""
    rows, columns = np.mgrid[:48, :64]
    disc = (rows - 24) ** 2 + (columns - 30) ** 2 < 15**2
    grain = np.random.default_rng(0).uniform(-0.05, 0.05, (48, 64, 3))
    colours = np.where(disc[..., None], (0.8, 0.7, 0.6), (0.2, 0.3, 0.25))
    return (colours + grain).astype(np.float32)


def test_a_random_filter_changes_texture_and_keeps_shapes_brightness_and_contrast() -> None:
    image = picture()
    inside = np.hypot(*(np.mgrid[:48, :64] - np.array([24, 30])[:, None, None])) < 12
    outside = np.hypot(*(np.mgrid[:48, :64] - np.array([24, 30])[:, None, None])) > 19
    apart, changes = [], []
    for seed in range(20):
        other = filtered(image, np.random.default_rng(seed))
        assert other.dtype == np.float32 and other.shape == image.shape
        np.testing.assert_allclose(other.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=1e-3)
        assert (other.std(axis=(0, 1)) < 1.01 * image.std(axis=(0, 1))).all()
        means = [other[part].mean(axis=0) for part in (inside, outside)]
        apart.append(np.abs(means[0] - means[1]).max())
        changes.append(np.abs(other - image).mean())
    assert np.mean(np.array(apart) > 0.1) > 0.7  # the disc is still there
    assert np.median(changes) > 0.02 and np.std(changes) > 0.01


def test_a_relit_picture_follows_from_its_seed_and_stays_within_its_range() -> None:
    image = picture()
    several = [relit(image, np.random.default_rng(seed)) for seed in range(30)]
    assert all(one.min() >= 0 and one.max() <= 1 for one in several)
    assert all(one.dtype == np.float32 for one in several)
    np.testing.assert_array_equal(several[7], relit(image, np.random.default_rng(7)))
    assert np.ptp([one.mean() for one in several]) > 0.2

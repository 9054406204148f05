"""Random augmentation of a labelled frame: crop, mirror, light, sensor and margin."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from d3_ros.data.labelled_frame import LabelledFrame
from d3_ros.imaging.image_file import jpeg_artefacts
from d3_ros.training.loading.label_precision import in_full_precision


def augmented(
    frame: LabelledFrame, rng: np.random.Generator, size: tuple[int, int], derive_normals: bool
) -> LabelledFrame:
    """The frame cropped, mirrored and relit at random, at `size` (height, width).

    `rgb` of the result is float32 in [0, 1]. With `derive_normals`, the normals are derived from
    the depth of the crop, before it is resized.
    """
    height, width = frame.rgb.shape[:2]
    # A crop keeps most of the frame: the network should learn that a robot's floor is below.
    zoom = rng.uniform(0.75, 1.0) if rng.random() < 0.5 else 1.0
    # The largest window with the aspect ratio of `size`; then each side shrinks by up to 7 %.
    seen_w = min(width, height * size[1] / size[0])
    seen_h = min(height, width * size[0] / size[1])
    crop_w = round(seen_w * zoom * rng.uniform(0.93, 1.0))
    crop_h = round(seen_h * zoom * rng.uniform(0.93, 1.0))
    x, y = int(rng.integers(width - crop_w + 1)), int(rng.integers(height - crop_h + 1))
    seen = frame.cropped(x, y, crop_w, crop_h)
    if derive_normals:
        seen = seen.with_derived_normals()
    seen = in_full_precision(seen.resized(*size))
    if rng.random() < 0.15:
        seen = distorted(seen, rng)
    if rng.random() < 0.5:
        seen = seen.mirrored()
    rgb = relit(seen.rgb.astype(np.float32) / 255, rng)
    relit_frame = replace(seen, rgb=rgb)
    return bordered(relit_frame, rng) if rng.random() < 0.1 else relit_frame


def distorted(frame: LabelledFrame, rng: np.random.Generator) -> LabelledFrame:
    """The frame through a lens that bends straight lines, without its black corners."""
    height, width = frame.rgb.shape[:2]
    bend = rng.uniform(-0.12, 0.12)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    radius = (rows**2 + columns**2) / 2
    factor = (1 + bend * radius) / (1 + max(bend, 0.0))
    x, y = (columns * factor + 1) * (width - 1) / 2, (rows * factor + 1) * (height - 1) / 2

    def seen(label: np.ndarray | None) -> np.ndarray | None:
        return None if label is None else cv2.remap(label, x, y, cv2.INTER_NEAREST)

    rgb = cv2.remap(frame.rgb, x, y, cv2.INTER_LINEAR)
    return replace(frame, rgb=rgb, depth=seen(frame.depth), normals=seen(frame.normals))


def bordered(frame: LabelledFrame, rng: np.random.Generator) -> LabelledFrame:
    """The frame with a black or white margin, as registered and rectified images have."""
    height, width = frame.rgb.shape[:2]
    top, bottom = (int(rng.integers(round(0.04 * height) + 1)) for _ in range(2))
    left, right = (int(rng.integers(round(0.04 * width) + 1)) for _ in range(2))
    image = np.zeros((height, width), dtype=bool)
    image[top : height - bottom, left : width - right] = True
    colour = np.float32(rng.integers(2))

    def known(label: np.ndarray | None) -> np.ndarray | None:
        if label is None:
            return None
        return np.where(image if label.ndim == 2 else image[..., None], label, 0)

    rgb = np.where(image[..., None], frame.rgb, colour)
    return replace(frame, rgb=rgb, depth=known(frame.depth), normals=known(frame.normals))


def relit(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The (H, W, 3) float32 image in [0, 1] with random light, colours, blur, noise and JPEG."""
    white = np.exp(rng.normal(0, 0.2, 3))
    exposure = rng.normal(-1.2, 0.4) if rng.random() < 0.2 else rng.normal(-0.15, 0.35)
    pools = _pools_of_light(rgb, rng) if rng.random() < 0.35 else None
    colours = np.diag(np.exp(exposure) * white)
    if rng.random() < 0.3:  # crosstalk between colours, as in another sensor
        colours = (np.eye(3) + rng.normal(0, 0.12, (3, 3))) @ colours
    saturation = rng.uniform(0.0, 0.6) if rng.random() < 0.15 else rng.uniform(0.6, 1.5)
    grey = np.full((3, 3), 1 / 3)
    colours = (grey + saturation * (np.eye(3) - grey)) @ colours
    # All that is linear in the colours is applied in one pass.
    image: np.ndarray = cv2.transform(np.ascontiguousarray(rgb), colours)
    if pools is not None:
        image = image * pools
    if rng.random() < 0.3:
        image = image * _sensor_shade(rgb.shape[:2], rng)
    if rng.random() < 0.25:
        image = filtered(image, rng)
    middle = image.mean()
    image = middle + (image - middle) * np.float32(rng.uniform(0.7, 1.3))
    image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.3:
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + grain * np.float32(rng.uniform(0.0, 0.06))
    image = np.clip(image, 0, 1).astype(np.float32)
    if rng.random() < 0.2:
        image = _compressed(image, int(rng.integers(30, 95)))
    return image


def filtered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The (H, W, 3) float32 image blended with a random convolution of itself, up to 7 x 7 pixels.

    Shapes stay, but textures and colours change, so that the network does not learn to read depth
    from them (random convolutions, arXiv 2007.13003). The convolved image gets the mean and the
    contrast of the original, channel by channel.
    """
    size = int(rng.choice([1, 3, 5, 7]))
    kernels = rng.normal(0, 1, (3, 3, size, size)).astype(np.float32)
    channels = [np.ascontiguousarray(image[..., i]) for i in range(3)]
    other = np.stack(
        [
            sum(cv2.filter2D(seen, -1, kernel) for seen, kernel in zip(channels, row, strict=True))
            for row in kernels
        ],
        axis=2,
    )
    other = (other - other.mean(axis=(0, 1))) / np.maximum(other.std(axis=(0, 1)), 1e-6)
    other = other * image.std(axis=(0, 1)) + image.mean(axis=(0, 1))
    share = np.float32(rng.uniform(0, 0.9))
    return ((1 - share) * image + share * other).astype(np.float32)


def _pools_of_light(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 1) float32, about 1: smooth changes of brightness, as from a few lamps."""
    stops = rng.normal(0, rng.uniform(0.1, 0.6), (3, 4)).astype(np.float32)
    height, width = rgb.shape[:2]
    return np.exp(cv2.resize(stops, (width, height), interpolation=cv2.INTER_CUBIC))[..., None]


def _sensor_shade(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """(H, W, 1) float32: dark corners of a lens, and the bands that flickering lamps leave in a
    picture whose rows are exposed one after the other."""
    height, width = size
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    shade = 1 - rng.uniform(0, 0.25) * (rows**2 + columns**2)
    if rng.random() < 0.5:
        phase = rng.uniform(0, 2 * np.pi)
        shade = shade * (1 + rng.uniform(0, 0.15) * np.sin(rng.uniform(2, 12) * rows + phase))
    return shade.astype(np.float32)[..., None]


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1], compressed as JPEG and decoded."""
    pixels = np.rint(image * 255).astype(np.uint8)
    return jpeg_artefacts(pixels, quality).astype(np.float32) / 255

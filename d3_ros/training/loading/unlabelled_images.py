"""Image files without labels, cropped and relit, for the distillation of the codec."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from d3_ros.errors import DataError
from d3_ros.training.loading.augment import relit

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
LABELS = {
    "depth",
    "depth_ori",
    "normal",
    "normals",
}  # folders and files without photographs


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, sorted, without label folders.

    Raises:
        DataError: there are fewer than two; one is for training, one for testing.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not LABELS & set(path.relative_to(folder).parts[:-1])
        and path.stem not in LABELS
    )
    if len(files) < 2:
        raise DataError(f"{folder} has fewer than two images ({', '.join(sorted(SUFFIXES))})")
    return files


def crop(
    rgb: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator | None,
    smallest: float = 1.0,
) -> torch.Tensor:
    """(H, W, 3) uint8 -> (3, *size) float32 in [-1, 1].

    With `rng`: a random window, mirrored half of the time and relit. Its sides are at least the
    share `smallest` (0 to 1) of the image's sides. Without `rng`: the whole image.
    """
    image = rgb.astype(np.float32) / 255
    if rng is not None:
        height, width = image.shape[:2]
        share = rng.uniform(smallest, 1)
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
        image = image[top : top + rows, left : left + columns]
        if rng.random() < 0.5:
            image = image[:, ::-1]
        image = relit(image, rng)
    resized = cv2.resize(np.ascontiguousarray(image), size[::-1])
    return torch.from_numpy(resized * 2 - 1).permute(2, 0, 1)

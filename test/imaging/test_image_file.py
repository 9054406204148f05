"""Pictures to files: what was not written is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros.errors import DataError
from d3_ros.imaging.image_file import read_image, write_image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_comes_back(tmp_path: Path, dtype: type) -> None:
    image = np.arange(12 * 16).reshape(12, 16).astype(dtype)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", cv2.IMREAD_UNCHANGED), image)


def test_a_missing_folder_and_a_full_disk_are_told(tmp_path: Path) -> None:
    """`cv2.imwrite` answers False and goes on."""
    image = np.zeros((12, 16), np.uint8)
    with pytest.raises(DataError, match=r"none/a\.png cannot be written \(No such file"):
        write_image(tmp_path / "none" / "a.png", image)
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"full\.png cannot be written \(No space left"):
        write_image(full, image)

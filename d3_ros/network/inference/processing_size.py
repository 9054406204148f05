"""The size at which the network sees an image: the bundle's, a given one, or one of its aspect."""

from __future__ import annotations

import math
import re
from typing import TypeAlias

from d3_ros.errors import DataError

LARGEST_SIDE = 4096  # pixels; an image of this size squared is far beyond any memory
Size: TypeAlias = tuple[int, int]  # (height, width) in pixels
ASPECT_MULTIPLE = 64  # the VAE of Stable Diffusion reduces by 8, its UNet by another 8
HELP = (
    "'bundle': the size the model was trained at; 'HxW' in pixels, as in 480x640; 'aspect': keep "
    "the image's aspect ratio, in multiples of 64, at about the pixel count of the model's own "
    "size; 'aspect:N': the same with a shorter side of about N pixels"
)


def choose_size(wanted: str, image_size: Size, trained_size: Size, multiple: int) -> Size:
    """The processing size (height, width) for an image.

    Args:
        wanted: "bundle", "HxW", "aspect" or "aspect:N" (see `HELP`).
        image_size: (height, width) of the camera image.
        trained_size: (height, width) that the bundle states.
        multiple: what the network's sides must be multiples of.

    Raises:
        DataError: `wanted` is none of these, not a multiple, or larger than `LARGEST_SIDE`.
    """
    if wanted == "bundle":
        return trained_size
    if len(wanted) > 20:  # before a number of any length is read
        raise DataError(f"processing size '{wanted[:20]}...' is too long for a size")
    if match := re.fullmatch(r"(\d+)x(\d+)", wanted, re.ASCII):
        height, width = int(match[1]), int(match[2])
        if max(height, width) > LARGEST_SIDE:
            raise DataError(f"processing size {wanted}: at most {LARGEST_SIDE} pixels a side")
        if height == 0 or width == 0 or height % multiple or width % multiple:
            raise DataError(
                f"processing size {wanted}: height and width must be multiples of {multiple}"
            )
        return height, width
    if match := re.fullmatch(r"aspect(?::([1-9]\d*))?", wanted, re.ASCII):
        if match[1] and int(match[1]) > LARGEST_SIDE:
            raise DataError(f"processing size {wanted}: at most {LARGEST_SIDE} pixels a side")
        height, width = image_size
        aspect = max(image_size) / min(image_size)
        shorter = int(match[1]) if match[1] else math.sqrt(math.prod(trained_size) / aspect)
        short = _to_multiple(shorter)
        # From the rounded side, not the wished-for one: keeps the aspect ratio closer.
        # Bounded: the aspect ratio comes from the image, which may be a few pixels narrow.
        long = min(_to_multiple(short * aspect), max(short, LARGEST_SIDE))
        return (short, long) if height <= width else (long, short)
    raise DataError(f"processing size '{wanted}' is not one of bundle, HxW, aspect, aspect:N")


def size_ladder(image_size: Size, most: Size) -> list[Size]:
    """The sizes to choose from under a latency target, smallest first.

    They keep the image's aspect ratio, in multiples of 64; the largest is the "aspect" of
    `choose_size`, about the pixel count of `most`, the smallest has about half its sides.

    Args:
        image_size: (height, width) of the camera image.
        most: (height, width) whose pixel count is not to be exceeded by much.
    """
    largest = choose_size("aspect", image_size, most, 1)
    shortest = min(largest)
    sides = range(_to_multiple(shortest / 2), shortest, ASPECT_MULTIPLE)
    sizes = [choose_size(f"aspect:{side}", image_size, most, 1) for side in sides]
    return [*sizes, largest]


def _to_multiple(side: float) -> int:
    return max(1, round(side / ASPECT_MULTIPLE)) * ASPECT_MULTIPLE

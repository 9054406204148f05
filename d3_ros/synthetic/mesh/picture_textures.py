"""Textures from pictures that the user has: a folder of photos, or an installed Python package.

The drawn textures of `random_textures` are clean. A photo of real wood, brick or carpet has what
they lack: stains, wear and the noise of a camera. A picture's file name tells what it may cover;
one that names no material is printed matter: a poster, a package, a screen.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from d3_ros.errors import D3Error
from d3_ros.imaging.image_file import read_rgb
from d3_ros.imaging.picture_header import picture_header
from d3_ros.synthetic.mesh.random_textures import SIZE, Texture

SHARE = 0.5  # of the materials of a role that has pictures
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
LEAST_SIDE = 64  # pixels; smaller pictures are icons
KEPT_PICTURES = 64  # in the memory of a process

# Words in a file's name, and the roles that such a picture is taken for. The first match counts.
MATERIALS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("wood", "plank", "parquet", "bamboo"), ("floor", "table", "furniture", "object")),
    (("brick",), ("wall", "facade")),
    (("plaster", "wall", "paint", "stucco"), ("wall", "ceiling", "facade")),
    (("ceiling",), ("ceiling",)),
    (("tile",), ("floor", "wall", "facade")),
    (("carpet", "felt", "fabric", "cloth", "leather", "wool"), ("fabric", "floor")),
    (("concrete", "asphalt"), ("ground", "floor", "track", "pavement", "concrete")),
    (("gravel", "sand"), ("ground", "floor", "track", "rock")),
    (("dirt", "grass", "soil", "moss"), ("ground", "floor", "soil", "lawn")),
    (("bark",), ("bark",)),
    (("metal", "steel", "brass", "iron", "alumin"), ("metal", "object")),
    (("cardboard", "carton"), ("carton",)),
    (("forest", "park", "city", "street", "sky", "outdoor", "outside"), ("outside", "poster")),
    (("marble", "ceramic", "clay", "stone", "granite"), ("object", "table", "floor")),
)
PRINTED = ("poster", "package", "object")
SPREAD = (*PRINTED, "outside")  # roles whose picture is spread over the face, not repeated


@dataclass(frozen=True)
class PictureTextures:
    """Pictures by the role of the surfaces that they may cover (a key of `ROLES`)."""

    by_role: Mapping[str, tuple[Path, ...]]

    def draw(self, role: str, rng: np.random.Generator) -> Texture | None:
        """A texture of a random picture; None if the role has none, else with chance 1 - `SHARE`.

        Raises:
            DataError: the picture cannot be read.
        """
        pictures = self.by_role.get(role, ())
        if not pictures or rng.random() >= SHARE:
            return None
        picture = _linear(pictures[int(rng.integers(len(pictures)))])
        return _varied(picture, role in SPREAD, rng)


def find_pictures(sources: Sequence[str]) -> PictureTextures:
    """The pictures of folders and of installed Python packages, with all that is below them.

    Args:
        sources: each a folder, or the name of a package, which is not imported.

    Raises:
        D3Error: a source is neither, has no picture of 64 x 64 pixels or more, or a file that
            cannot be read.
    """
    by_role: dict[str, list[Path]] = {}
    for source in sources:
        folder = _folder(source)
        files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
        pictures = [file for file in files if file.is_file() and _is_picture(file)]
        if not pictures:
            raise D3Error(f"assets {source}: no picture ({', '.join(SUFFIXES)}) in {folder}")
        for picture in pictures:
            for role in roles_of(picture.stem):
                by_role.setdefault(role, []).append(picture)
    return PictureTextures({role: tuple(pictures) for role, pictures in by_role.items()})


def roles_of(name: str) -> tuple[str, ...]:
    """The roles that a picture with this file name is taken for."""
    for words, roles in MATERIALS:
        if any(word in name.lower() for word in words):
            return roles
    return PRINTED


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    found = importlib.util.find_spec(source) if source.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise D3Error(
            f"assets {source}: neither a folder nor an installed Python package; "
            "give a folder of pictures, or install the package"
        )
    return Path(found.submodule_search_locations[0])


def _is_picture(file: Path) -> bool:
    try:
        header = picture_header(file.read_bytes())
    except OSError as error:
        raise D3Error(f"assets: {file} cannot be read ({error.strerror})") from error
    return header is not None and min(header.width, header.height) >= LEAST_SIDE


@lru_cache(KEPT_PICTURES)
def _linear(file: Path) -> np.ndarray:
    """(h, w, 3) float32 linear albedo, the shorter side 2 SIZE pixels at most."""
    rgb = read_rgb(file)
    scale = min(1.0, 2 * SIZE / min(rgb.shape[:2]))
    if scale < 1:
        size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return (rgb.astype(np.float32) / 255) ** np.float32(2.2)


def _varied(picture: np.ndarray, spread: bool, rng: np.random.Generator) -> Texture:
    """A random square of the picture, relit; mirrored to repeat without seams, unless `spread`."""
    side = round(min(picture.shape[:2]) * (1.0 if spread else rng.uniform(0.4, 1.0)))
    y = int(rng.integers(picture.shape[0] - side + 1))
    x = int(rng.integers(picture.shape[1] - side + 1))
    pixels = SIZE if spread else SIZE // 2
    square = np.ascontiguousarray(picture[y : y + side, x : x + side])
    image = cv2.resize(square, (pixels, pixels), interpolation=cv2.INTER_AREA)
    grey = image.mean(axis=2, keepdims=True)
    image = grey + np.float32(rng.uniform(0.3, 1.4)) * (image - grey)
    image = image * np.exp(rng.normal(0, 0.12, 3) + rng.normal(0, 0.3)).astype(np.float32)
    if not spread:
        if rng.random() < 0.5:
            image = image.transpose(1, 0, 2)
        image = np.concatenate([image, image[:, ::-1]], axis=1)
        image = np.concatenate([image, image[::-1]], axis=0)
    metres = 0.0 if spread else float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    return np.clip(image, 0.02, 0.98).astype(np.float32), metres

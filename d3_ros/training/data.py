"""Batches for training: a folder of frames, decoded once, then cropped, mirrored and relit.

The folder is what `python -m d3_ros render` writes (rgb/, depth/ uint16 millimetres, normals/
8-bit, see `render_dataset`). Its frames are decoded once into memory-mapped arrays beside it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from d3_ros.errors import DataError

QUANTILES = (0.02, 0.98)  # of the valid depth: these become 0 and 1 in the target
MIN_DEPTH_M, MAX_DEPTH_M = 0.05, 60.0


@dataclass(frozen=True)
class FrameStore:
    """All frames, decoded and memory-mapped: `rgb` (N, H, W, 3) uint8, `depth` (N, H, W) uint16
    millimetres, 0 = none, `normals` (N, H, W, 3) uint8 as `render_dataset.encode_normals`."""

    rgb: np.ndarray
    depth: np.ndarray
    normals: np.ndarray

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class Batch:
    """Tensors of B frames at one size.

    `image` (B, 3, h, w) in [-1, 1]; `depth` (B, h, w) metres; `depth_target` (B, h, w) in [0, 1];
    `depth_valid` (B, h, w) bool; `normals` (B, 3, h, w) unit vectors, optical frame;
    `normals_valid` (B, h, w) bool.
    """

    image: torch.Tensor
    depth: torch.Tensor
    depth_target: torch.Tensor
    depth_valid: torch.Tensor
    normals: torch.Tensor
    normals_valid: torch.Tensor


def open_store(folder: Path) -> FrameStore:
    """Open a folder's frames; the first time, decode them into `folder/packed`.

    Raises:
        DataError: no frames, a frame without its depth or normals, or sizes that differ.
    """
    names = sorted(path.name for path in (folder / "rgb").glob("*")) if folder.is_dir() else []
    if not names:
        raise DataError(f"{folder / 'rgb'} has no frames: make some with 'python -m d3_ros render'")
    packed = folder / "packed"
    if not packed.is_dir():
        _pack(folder, names, packed)
    arrays = [np.load(packed / f"{kind}.npy", mmap_mode="r") for kind in _KINDS]
    if len(arrays[0]) != len(names):
        raise DataError(f"{packed} holds {len(arrays[0])} frames, {folder} {len(names)}: remove it")
    return FrameStore(*arrays)


_KINDS = ("rgb", "depth", "normals")


def _pack(folder: Path, names: list[str], packed: Path) -> None:
    first = _read(folder / "rgb" / names[0], cv2.IMREAD_COLOR)
    height, width = first.shape[:2]
    shapes = {
        "rgb": ((len(names), height, width, 3), np.uint8),
        "depth": ((len(names), height, width), np.uint16),
        "normals": ((len(names), height, width, 3), np.uint8),
    }
    unfinished = packed.with_name(f".packed-{os.getpid()}")
    unfinished.mkdir()
    try:
        arrays = {
            kind: np.lib.format.open_memmap(unfinished / f"{kind}.npy", "w+", dtype, shape)
            for kind, (shape, dtype) in shapes.items()
        }
        for i, name in enumerate(tqdm(names, unit="frame", desc="decode")):
            stem = Path(name).stem
            frame = {
                "rgb": _read(folder / "rgb" / name, cv2.IMREAD_COLOR)[..., ::-1],
                "depth": _read(folder / "depth" / f"{stem}.png", cv2.IMREAD_UNCHANGED),
                "normals": _read(folder / "normals" / f"{stem}.png", cv2.IMREAD_COLOR)[..., ::-1],
            }
            for kind, array in frame.items():
                if array.shape != shapes[kind][0][1:] or array.dtype != shapes[kind][1]:
                    raise DataError(
                        f"{folder / kind / stem}: {array.dtype} {array.shape}, expected "
                        f"{np.dtype(shapes[kind][1])} {shapes[kind][0][1:]}"
                    )
                arrays[kind][i] = array
        for memmap in arrays.values():
            memmap.flush()
        unfinished.rename(packed)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read(path: Path, flags: int) -> np.ndarray:
    image = cv2.imread(str(path), flags)
    if image is None:
        raise DataError(f"{path} is missing or not an image")
    return image


def draw_batch(
    store: FrameStore, rng: np.random.Generator, count: int, size: tuple[int, int]
) -> Batch:
    """`count` random frames, each randomly cropped, mirrored and relit, at `size` (h, w)."""
    chosen = rng.integers(len(store), size=count)
    frames = [_augmented(store, int(i), rng, size) for i in chosen]
    rgb, depth, normals = (np.stack(part) for part in zip(*frames, strict=True))
    depth_valid = (depth > MIN_DEPTH_M) & (depth < MAX_DEPTH_M)
    normals_valid = np.abs(normals).sum(axis=-1) > 0.5
    target = np.stack([quantile_normalised(d, v) for d, v in zip(depth, depth_valid, strict=True)])
    return Batch(
        image=torch.from_numpy(rgb).permute(0, 3, 1, 2),
        depth=torch.from_numpy(depth),
        depth_target=torch.from_numpy(target),
        depth_valid=torch.from_numpy(depth_valid),
        normals=torch.from_numpy(normals).permute(0, 3, 1, 2),
        normals_valid=torch.from_numpy(normals_valid),
    )


def quantile_normalised(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(H, W) metres to [0, 1]: the 2 % and 98 % quantiles of the valid pixels become 0 and 1."""
    if not valid.any():
        return np.zeros(depth.shape, dtype=np.float32)
    near, far = np.quantile(depth[valid], QUANTILES)
    return np.clip((depth - near) / max(far - near, 1e-3), 0, 1).astype(np.float32)


def _augmented(
    store: FrameStore, index: int, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = store.depth.shape[1:]
    # Little cropping: that a robot's camera is upright, its floor below, is worth knowing.
    zoom = rng.uniform(0.75, 1.0) if rng.random() < 0.5 else 1.0
    crop_w = round(width * zoom * rng.uniform(0.93, 1.0))
    crop_h = round(height * zoom * rng.uniform(0.93, 1.0))
    x, y = int(rng.integers(width - crop_w + 1)), int(rng.integers(height - crop_h + 1))
    window = (index, slice(y, y + crop_h), slice(x, x + crop_w))
    shape = (size[1], size[0])
    # Bilinear without antialias, as at inference; labels are never mixed across edges.
    rgb = cv2.resize(np.ascontiguousarray(store.rgb[window]), shape)
    depth, normals = (
        cv2.resize(np.ascontiguousarray(a[window]), shape, interpolation=cv2.INTER_NEAREST)
        for a in (store.depth, store.normals)
    )
    metres = depth.astype(np.float32) / 1000
    some = normals.any(axis=-1, keepdims=True)
    vectors = np.where(some, (normals.astype(np.float32) - 128) / 127, 0)
    vectors /= np.maximum(np.sqrt(np.einsum("ijk,ijk->ij", vectors, vectors)), 1e-6)[..., None]
    if rng.random() < 0.5:
        rgb, metres, vectors = rgb[:, ::-1], metres[:, ::-1], vectors[:, ::-1] * (-1, 1, 1)
    image = relit(rgb.astype(np.float32) / 255, rng)
    return image * 2 - 1, np.ascontiguousarray(metres), vectors.astype(np.float32)


def relit(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] under another light and camera: colour, contrast, noise, blur."""
    image = rgb * np.exp(rng.normal(-0.1, 0.3)) * np.exp(rng.normal(0, 0.17, 3)).astype(np.float32)
    if rng.random() < 0.3:  # colours leak into each other: another sensor
        mix = np.eye(3) + rng.normal(0, 0.12, (3, 3))
        image = image @ mix.T.astype(np.float32)
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * np.float32(
        rng.uniform(0.0, 0.6) if rng.random() < 0.15 else rng.uniform(0.6, 1.5)
    )
    middle = float(grey.mean())
    image = middle + (image - middle) * np.float32(rng.uniform(0.7, 1.3))
    image = np.clip(image, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.25)))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.3:
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + grain * np.float32(rng.uniform(0.0, 0.06))
    return np.clip(image, 0, 1).astype(np.float32)

"""One training sample, a batch of them, and the interface of their source.

This is the contract between the datasets and the loop. Tensors are float32 on the CPU. (H, W) is
the size at which the network runs, (h, w) the size of the labels. Where they differ, the losses
resize the network's output, never the labels.

Unknown labels are zero: depth 0, normal (0, 0, 0). No number is NaN or infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch


@dataclass(frozen=True)
class Sample:
    """One frame with its labels. A label that no frame of the dataset has is None.

    name: unique in its dataset; for messages.
    image: (3, H, W) RGB in [-1, 1].
    depth: (h, w) z-depth in metres; 0 if unknown or outside the dataset's range.
    depth_target: (h, w), or (H, W) if the labels were stored at that size, in [-1, 1]: the depth,
        mapped so that the 2 % and 98 % quantiles of its valid pixels are `data.depth_share` of the
        range, and clipped. Undefined where depth is 0.
    normals: (3, h, w) unit vectors in the optical frame (x right, y down, z forward, facing the
        camera), (0, 0, 0) if unknown.
    normals_target: (3, h, w), or (3, H, W) as above: the same in [-1, 1], still in the optical
        frame; not of unit length if it was resized.
    caption: the frame's own training prompt, or None: the task's fixed prompt.
    image_key: names the pixels of `image`, so that its latent can be cached: equal keys mean equal
        pixels. None if the image was augmented.
    """

    name: str
    image: torch.Tensor
    depth: torch.Tensor | None
    depth_target: torch.Tensor | None
    normals: torch.Tensor | None
    normals_target: torch.Tensor | None
    caption: str | None = None
    image_key: str | None = None


class SampleSource(Protocol):
    """A dataset, or a mixture of several, at one image size.

    Every method is a function of its arguments, without hidden state, so that a run that was cut
    off, or that has another number of processes, sees the same samples.
    """

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def plan(self, seed: int, batch: int, count: int) -> list[int]:
        """Indices of the `count` samples in batch number `batch` (from 0).

        They come from one dataset, so that their labels have one size. All frames of a dataset
        come, in random order, before any of them comes again.
        """
        ...

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """Frame `index`, augmented with random numbers from `rng`. None: not augmented.

        Raises:
            DataError: a file is missing, damaged or has the wrong size; the message names it.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """B samples stacked: the fields of `Sample` with a leading B."""

    image: torch.Tensor
    depth: torch.Tensor | None
    depth_target: torch.Tensor | None
    normals: torch.Tensor | None
    normals_target: torch.Tensor | None
    captions: tuple[str | None, ...]
    image_keys: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on `device`."""
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True), lambda keys: keys)

    def pin_memory(self) -> Batch:
        """The batch in pinned memory. DataLoader calls this."""
        return self._changed(torch.Tensor.pin_memory, lambda keys: keys)

    def rows(self, rows: list[int]) -> Batch:
        """The batch of the images `rows`."""
        return self._changed(
            lambda tensor: tensor[rows], lambda keys: tuple(keys[row] for row in rows)
        )

    def _changed(
        self,
        tensors: Callable[[torch.Tensor], torch.Tensor],
        keys: Callable[[tuple[str | None, ...]], tuple[str | None, ...]],
    ) -> Batch:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                changed[field.name] = tensors(value) if torch.is_tensor(value) else keys(value)
        return replace(self, **changed)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one dataset.

    Raises:
        ValueError: shapes differ, or some samples have a label that others lack.
    """

    def stacked(field: str) -> torch.Tensor | None:
        values = [getattr(sample, field) for sample in samples]
        present = [value for value in values if value is not None]
        if not present:
            return None
        shapes = {tuple(value.shape) for value in present}
        if len(present) < len(values) or len(shapes) > 1:
            names = ", ".join(sample.name for sample in samples)
            raise ValueError(f"{field} differs within a batch ({names}): {sorted(shapes)}")
        return torch.stack(present)

    image = stacked("image")
    assert image is not None
    return Batch(
        image=image,
        depth=stacked("depth"),
        depth_target=stacked("depth_target"),
        normals=stacked("normals"),
        normals_target=stacked("normals_target"),
        captions=tuple(sample.caption for sample in samples),
        image_keys=tuple(sample.image_key for sample in samples),
    )

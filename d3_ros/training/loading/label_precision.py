"""Labels in half precision, so that more decoded frames fit into memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from d3_ros.data.labelled_frame import LabelledFrame


def in_half_precision(frame: LabelledFrame) -> LabelledFrame:
    """The frame with float16 labels. 11 bits are finer than 8-bit normals and a camera's depth."""
    return _with_labels_as(frame, torch.float16)


def in_full_precision(frame: LabelledFrame) -> LabelledFrame:
    """The frame with float32 labels."""
    return _with_labels_as(frame, torch.float32)


def _with_labels_as(frame: LabelledFrame, dtype: torch.dtype) -> LabelledFrame:
    def converted(label: np.ndarray | None) -> np.ndarray | None:
        if label is None:
            return None
        # torch converts float16 ten times faster than NumPy.
        return torch.from_numpy(np.ascontiguousarray(label)).to(dtype).numpy()

    return replace(frame, depth=converted(frame.depth), normals=converted(frame.normals))

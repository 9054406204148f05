"""Where a bag's sensors sit: the static transforms that it recorded."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from d3_ros.data.bag.file import read_messages
from d3_ros.errors import DataError
from d3_ros.geometry.rigid import inverse_rigid, rigid_transform

TF_STATIC = "/tf_static"


class StaticTransforms:
    """The tree of a bag's /tf_static; frames are named with or without a leading slash."""

    def __init__(self, path: Path) -> None:
        """Read all of /tf_static; the last transform of a frame holds.

        Raises:
            DataError: the bag cannot be read, or a transform is not finite.
        """
        self._path = path
        self._steps: dict[str, dict[str, np.ndarray]] = {}  # target -> source -> T_target_source
        for _, _, message in read_messages(path, [TF_STATIC]):
            for one in message.transforms:
                parent, child = _bare(one.header.frame_id), _bare(one.child_frame_id)
                shift, turn = one.transform.translation, one.transform.rotation
                try:
                    matrix = rigid_transform(
                        (shift.x, shift.y, shift.z), (turn.x, turn.y, turn.z, turn.w)
                    )
                except ValueError as error:
                    raise DataError(f"{path}: {TF_STATIC} of '{child}': {error}") from error
                self._steps.setdefault(parent, {})[child] = matrix
                self._steps.setdefault(child, {})[parent] = inverse_rigid(matrix)

    def find(self, target: str, source: str) -> np.ndarray | None:
        """T_target_source (4, 4): maps points of `source` into `target`; None where not known."""
        target, source = _bare(target), _bare(source)
        reached = {target: np.eye(4)}
        waiting = deque([target])
        while waiting:
            frame = waiting.popleft()
            if frame == source:
                return reached[frame]
            for other, step in self._steps.get(frame, {}).items():
                if other not in reached:
                    reached[other] = reached[frame] @ step
                    waiting.append(other)
        return None

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames."""
        return tuple(sorted(self._steps))


def _bare(frame: str) -> str:
    return str(frame).lstrip("/")

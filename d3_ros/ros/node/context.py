"""What the parts of a node share: the node itself, and the state of one camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode

from d3_ros.pipeline import Predictor
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.inputs.transforms import Transforms
from d3_ros.ros.parameters.node_settings import NodeSettings


@dataclass(frozen=True)
class NodeContext:
    """What all cameras of a node share."""

    node: LifecycleNode
    predictor: Predictor
    transforms: Transforms
    log: ThrottledLogger


@dataclass
class CameraState:
    """What the executor's thread tells the worker's about a camera; fields may change any time.

    Attributes:
        settings: the parameters as they are now; a frame keeps those it began with.
        enabled: whether images are processed (service `~/enable`).
        active_since: when the camera was activated, time.monotonic() seconds; infinite while it is
            not active. Images received earlier are not published.
    """

    settings: NodeSettings
    enabled: bool = True
    active_since: float = math.inf

"""The camera's image as the node subscribes to it: raw, or compressed as image_transport does."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from d3_ros.ros.compressed import rgb_from_compressed
from d3_ros.ros.from_messages import rgb_from_image
from d3_ros.ros.settings import ImageSettings

RAW = "image"
COMPRESSED = "image/compressed"


def image_input(node: Node, transport: str) -> tuple[type, str]:
    """Type and full name of the topic that the images come on.

    Compressed images come on a sub-topic of the raw one, so that remapping `image` is enough; who
    remaps `image/compressed` itself is followed too.

    Args:
        node: whose remappings hold.
        transport: the parameter image.transport, "raw" or "compressed".
    """
    if transport == "raw":
        return Image, node.resolve_topic_name(RAW)
    remapped = node.resolve_topic_name(COMPRESSED)
    if remapped != node.resolve_topic_name(COMPRESSED, only_expand=True):
        return CompressedImage, remapped
    return CompressedImage, f"{node.resolve_topic_name(RAW)}/compressed"


def rgb_from_message(
    message: Image | CompressedImage, topic: str, settings: ImageSettings
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a camera's image; do not write to it.

    Raises:
        MessageError: it cannot be read; the line says why.
    """
    read = rgb_from_compressed if isinstance(message, CompressedImage) else rgb_from_image
    return read(message, topic, settings.bit_depth)

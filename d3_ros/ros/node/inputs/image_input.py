"""The camera's image as the node subscribes to it: raw, or compressed as image_transport does."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from d3_ros.messages.compressed import rgb_from_compressed
from d3_ros.messages.images import rgb_from_image
from d3_ros.ros.parameters.node_settings import ImageSettings
from d3_ros.ros.parameters.parameter_row import ParameterError

RAW = "image"
SUB_TOPIC = "/compressed"
COMPRESSED = RAW + SUB_TOPIC


def image_input(node: Node, transport: str, camera: str = "") -> tuple[type, str]:
    """Type and full name of the topic that the images come on.

    Compressed images come on a sub-topic of the raw one, so that remapping `image` is enough; who
    remaps `image/compressed` itself is followed too.

    Args:
        node: whose remappings hold.
        transport: the parameter image.transport, "raw" or "compressed".
        camera: what goes before the topic's name, of one of several cameras.

    Raises:
        ParameterError: raw images are asked for of a topic of compressed ones.
    """
    prefix = f"{camera}/" if camera else ""
    raw = node.resolve_topic_name(prefix + RAW)
    if transport == "raw":
        if raw.endswith(SUB_TOPIC):
            raise ParameterError(
                f"'{prefix}{RAW}' is remapped to '{raw}', where compressed images are: set the "
                "parameter image.transport to compressed"
            )
        return Image, raw
    remapped = node.resolve_topic_name(prefix + COMPRESSED)
    if remapped != node.resolve_topic_name(prefix + COMPRESSED, only_expand=True):
        return CompressedImage, remapped
    return CompressedImage, raw if raw.endswith(SUB_TOPIC) else raw + SUB_TOPIC


def rgb_from_message(
    message: Image | CompressedImage, topic: str, settings: ImageSettings
) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a camera's image; do not write to it.

    Raises:
        MessageError: it cannot be read; the line says why.
    """
    read = rgb_from_compressed if isinstance(message, CompressedImage) else rgb_from_image
    return read(message, topic, settings.bit_depth)

"""Full names of one camera's input topics, after remapping, and the type of its image topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, LaserScan, PointCloud2

from d3_ros.ros.node.inputs.matched_inputs import Sensor
from d3_ros.ros.parameters.parameter_row import ParameterError

IMAGE = "image"
CAMERA_INFO = "camera_info"
SENSOR_TOPICS: dict[Sensor, tuple[type, str]] = {
    "image": (Image, "sensor_depth/image"),
    "points": (PointCloud2, "sensor_depth/points"),
    "scan": (LaserScan, "sensor_depth/scan"),
}
COMPRESSED_SUFFIX = "/compressed"


@dataclass(frozen=True)
class InputTopics:
    """Full names of the topics that a camera subscribes to; `image_type` is the image's message.

    `asked` maps a full name to the node's own name for it. Subscribe with that one: ROS would
    apply the remappings to a full name a second time, which undoes a swap of two cameras.
    """

    image: str
    image_type: type
    camera_info: str
    sensors: Mapping[Sensor, str]
    asked: Mapping[str, str]


def resolve_input_topics(node: Node, transport: str, camera: str = "") -> InputTopics:
    """The topics of one camera, with the node's remappings applied.

    Compressed images come on the sub-topic `/compressed` of the raw topic, so that a remapping of
    `image` is enough; a remapping of `image/compressed` itself is followed, too.

    Args:
        node: whose remappings hold.
        transport: the parameter image.transport, "raw" or "compressed".
        camera: prefix of the topics of one of several cameras.

    Raises:
        ParameterError: raw images are asked for, but the topic is one of compressed images.
    """
    prefix = f"{camera}/" if camera else ""
    image, image_type = _image_topic(node, transport, prefix)
    own = [prefix + topic for topic in (IMAGE, IMAGE + COMPRESSED_SUFFIX, CAMERA_INFO)]
    own += [prefix + topic for _, topic in SENSOR_TOPICS.values()]
    return InputTopics(
        image=image,
        image_type=image_type,
        camera_info=node.resolve_topic_name(prefix + CAMERA_INFO),
        sensors={
            sensor: node.resolve_topic_name(prefix + topic)
            for sensor, (_, topic) in SENSOR_TOPICS.items()
        },
        asked={node.resolve_topic_name(name): name for name in own},
    )


def _image_topic(node: Node, transport: str, prefix: str) -> tuple[str, type]:
    """Full name and message type of the image topic."""
    raw = node.resolve_topic_name(prefix + IMAGE)
    if transport == "raw":
        if raw.endswith(COMPRESSED_SUFFIX):
            raise ParameterError(
                f"'{prefix}{IMAGE}' is remapped to '{raw}', where compressed images are: set the "
                "parameter image.transport to compressed"
            )
        return raw, Image
    compressed = prefix + IMAGE + COMPRESSED_SUFFIX
    remapped = node.resolve_topic_name(compressed)
    if remapped != node.resolve_topic_name(compressed, only_expand=True):
        return remapped, CompressedImage
    return raw if raw.endswith(COMPRESSED_SUFFIX) else raw + COMPRESSED_SUFFIX, CompressedImage

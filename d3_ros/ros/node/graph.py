"""Questions to the ROS graph: why nothing arrives on a topic, and who else has the node's name."""

from __future__ import annotations

import difflib
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
MOST_TOPICS_NAMED = 6


def type_name(message_type: type) -> str:
    """As ROS writes it: sensor_msgs/msg/Image."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def other_types(node: Node, topic: str, message_type: type) -> list[str]:
    """The types that publishers of a topic send, where none of them sends `message_type`."""
    sent = {str(info.topic_type) for info in node.get_publishers_info_by_topic(topic)}
    return [] if type_name(message_type) in sent else sorted(sent)


def wrong_type(node: Node, topic: str, message_type: type, is_camera: bool = False) -> str:
    """One line where a topic carries another type than the node subscribes to; else empty.

    `is_camera`: it is the camera's image, which may be compressed; sensor depth may not.
    """
    sent = other_types(node, topic, message_type)
    if not sent:
        return ""
    wanted = type_name(message_type)
    line = f"'{topic}' carries {' and '.join(sent)}, not {wanted}"
    if is_camera and {wanted, *sent} <= set(IMAGE_TYPES):
        transport = "compressed" if wanted == IMAGE_TYPES[0] else "raw"
        return f"{line}: set the parameter image.transport to {transport}"
    if {wanted, *sent} <= set(IMAGE_TYPES):
        return (
            f"{line}: sensor depth is read uncompressed only. Remap the input to the raw topic, or "
            "republish it (ros2 run image_transport republish, from compressedDepth to raw)"
        )
    return f"{line}: remap the node's input to a topic of that type"


def why_silent(node: Node, topic: str, message_type: type) -> str:
    """Why nothing arrives on an image topic, in one line."""
    if line := wrong_type(node, topic, message_type, is_camera=True):
        return line
    publishers = node.count_publishers(topic)
    if publishers:
        nodes = [info.node_name for info in node.get_publishers_info_by_topic(topic)]
        return f"'{topic}' has a publisher ({', '.join(sorted(set(nodes)))}) that sends nothing"
    wanted = type_name(message_type)
    there = [
        name
        for name, types in node.get_topic_names_and_types()
        if wanted in types and node.count_publishers(name) and not _is_own(node, name)
    ]
    # The names that resemble the wrong one come first.
    there.sort(key=lambda name: -difflib.SequenceMatcher(None, name, topic).ratio())
    named = ", ".join(there[:MOST_TOPICS_NAMED]) or "none"
    return f"nobody publishes '{topic}'; topics with {wanted}: {named}"


def latched_profile(node: Node, topic: str) -> QoSProfile | None:
    """The profile to subscribe with where a publisher keeps its last message for late subscribers.

    None where no publisher does. A subscription that asks for that from other publishers would make
    each of them log a warning.
    """
    for info in node.get_publishers_info_by_topic(topic):
        offered: Any = info.qos_profile
        if offered.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            return QoSProfile(
                depth=1, reliability=offered.reliability, durability=offered.durability
            )
    return None


def namesakes(node: Node) -> int:
    """How many other nodes have this node's full name."""
    own = (node.get_name(), node.get_namespace())
    return max(node.get_node_names_and_namespaces().count(own) - 1, 0)


def _is_own(node: Node, topic: str) -> bool:
    return topic.startswith(node.get_fully_qualified_name() + "/")

"""Quality of service of inputs and outputs, and plain words where two sides do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

# Reliable and volatile fits what RViz, Nav2 and most other subscribers ask for.
OUTPUT = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=2,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


def input_profile(reliability: str, queue_depth: int) -> QoSProfile:
    """The profile of the input topics. `reliability`: 'best_effort' or 'reliable'."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=queue_depth,
        reliability=ReliabilityPolicy[reliability.upper()],
        durability=DurabilityPolicy.VOLATILE,
    )


def explain_subscription(topic: str, warn: Callable[[str], None]) -> SubscriptionEventCallbacks:
    """Event callbacks that warn where a publisher offers less than the node asks for."""

    def incompatible(event: Any) -> None:
        policy = _policy_name(event)
        remedy = (
            "set the parameter input.reliability to best_effort"
            if policy == "RELIABILITY"
            else f"change the publisher's {policy.lower()}"
        )
        warn(
            f"a publisher of '{topic}' offers less {policy.lower()} than this node asks for, "
            f"so nothing will come from it: {remedy}"
        )

    return SubscriptionEventCallbacks(incompatible_qos=incompatible, use_default_callbacks=False)


def explain_publisher(topic: str, warn: Callable[[str], None]) -> PublisherEventCallbacks:
    """Event callbacks that warn where a subscriber asks for more than the node offers."""

    def incompatible(event: Any) -> None:
        policy = _policy_name(event).lower()
        warn(
            f"a subscriber of '{topic}' asks for more {policy} than this node offers (reliable, "
            f"volatile), so it will receive nothing: change the subscriber's {policy}"
        )

    return PublisherEventCallbacks(incompatible_qos=incompatible, use_default_callbacks=False)


def _policy_name(event: Any) -> str:
    return qos_policy_name_from_kind(event.last_policy_kind)

"""Quality of service: what the node asks and offers, and plain words where the two do not meet."""

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

# Reliable and volatile satisfies every subscriber that asks for no more, RViz and Nav2 included.
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
    """Callbacks that say which publisher's offer is too weak for us, and what to do."""

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
    """Callbacks that say which subscriber asks for more than we offer, and what to do."""

    def incompatible(event: Any) -> None:
        policy = _policy_name(event).lower()
        warn(
            f"a subscriber of '{topic}' asks for more {policy} than this node offers (reliable, "
            f"volatile), so it will receive nothing: change the subscriber's {policy}"
        )

    return PublisherEventCallbacks(incompatible_qos=incompatible, use_default_callbacks=False)


def _policy_name(event: Any) -> str:
    return qos_policy_name_from_kind(event.last_policy_kind)

"""Runs the node `predictor` in this process until it is told to end."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger

from d3_ros.errors import one_line
from d3_ros.ros.termination import Termination

if TYPE_CHECKING:
    from d3_ros.ros.node.predictor_node import PredictorNode

# How long the end of the process waits for the frame that is being processed.
LAST_FRAME_S = 1.0


def run(args: list[str] | None, termination: Termination) -> int:
    """Create and spin the node; the exit code is 0, or 1 for arguments that ROS cannot read."""
    termination.clean_up_is_needed()
    try:
        rclpy.init(args=args)
    except RuntimeError as error:  # a file or a remapping that ROS cannot read
        print(f"predictor: {one_line(error)}", file=sys.stderr)
        return 1
    get_logger("predictor").info("starting")
    node, finished = None, True
    try:
        # Importing NumPy, OpenCV and SciPy takes seconds on a busy machine: after the first line.
        from d3_ros.ros.node.predictor_node import PredictorNode

        node = PredictorNode()
        if node.starts_by_itself:
            node.start()
        spin(node, termination)
    except Exception:
        if rclpy.ok():  # else a signal shut ROS down, and ROS refused something for it
            raise
    finally:
        termination.ignore()
        if node is not None:
            finished = node.close(LAST_FRAME_S)
            node.destroy_node()
        rclpy.try_shutdown()
    if not finished:
        # A thread inside torch cannot be ended, and the interpreter's own end under it may crash.
        sys.stderr.flush()
        os._exit(0)
    return 0


def spin(node: PredictorNode, termination: Termination) -> None:
    """Run the node's callbacks. One that raises is logged: a robot must not lose its node by it."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while rclpy.ok() and not termination.requested:
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception:
            if rclpy.ok():  # else ROS was shut down while the callback used it
                node.report_fault(traceback.format_exc())

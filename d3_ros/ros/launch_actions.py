"""Launch actions that the launch files share.

`launch` is imported inside the functions: it comes with a ROS installation only.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from d3_ros.ros.launching import check_exit


def ends_the_launch(node: Any) -> Any:
    """End the launch when the node's process has ended; with 1 if the process failed."""
    from launch.actions import EmitEvent, RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch.events import Shutdown

    def end(event: Any, context: Any) -> list[Any]:
        if context.is_shutdown:  # the launch ended the node, not the other way round
            return []
        check_exit(node.node_name, event.returncode)  # what it raises makes the launch end with 1
        return [EmitEvent(event=Shutdown(reason=f"the node {node.node_name} ended"))]

    return RegisterEventHandler(OnProcessExit(target_action=node, on_exit=end))


def hears_ctrl_c(node: Any) -> Any:
    """Send SIGINT to the node's process when the launch got one.

    `ros2 launch` leaves that to the terminal, which signals all processes. Where only the launch
    was signalled (`kill`, a service manager), the node would run on until SIGTERM, 5 s later.
    """
    from launch.actions import RegisterEventHandler
    from launch.event_handlers import OnShutdown

    def interrupt(event: Any, context: Any) -> list[Any]:
        pid = (node.process_details or {}).get("pid")
        if event.due_to_sigint and pid is not None and node.return_code is None:
            os.kill(pid, signal.SIGINT)
        return []

    return RegisterEventHandler(OnShutdown(on_shutdown=interrupt))

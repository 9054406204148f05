"""`python -m d3_ros.ros.predictor_node`: the node's process. The node itself is in `ros/node/`."""

from __future__ import annotations

import sys

from d3_ros.ros.termination import Termination


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; the exit code is 0 then, 1 for bad ROS arguments."""
    termination = Termination()
    termination.install()
    # Takes seconds: the signals are handled before.
    from d3_ros.ros.node.process import run

    return run(args, termination)


if __name__ == "__main__":
    sys.exit(main())

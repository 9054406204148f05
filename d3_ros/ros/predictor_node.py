"""`python -m d3_ros.ros.predictor_node`: the node's process. The node itself is in `ros/node/`."""

from __future__ import annotations

import sys

from d3_ros.errors import D3Error, missing_package
from d3_ros.ros.fast_dds import check_shared_memory
from d3_ros.ros.termination import Termination

HELP = """usage: predictor [--ros-args -p PARAMETER:=VALUE -r TOPIC:=TOPIC --params-file FILE]

The lifecycle node `predictor`: metric depth, normals and point clouds of a camera. It waits to be
configured and activated; with -p autostart:=true it does both itself.
Parameters: config/predictor.yaml. Topics: docs/node.md.
Usually it is started by: ros2 launch d3_ros predictor.launch.py"""


def main(args: list[str] | None = None) -> int:
    """Run the node until Ctrl-C or SIGTERM; the exit code is 0 then, 1 where it cannot start."""
    words = sys.argv[1:] if args is None else args
    if words[:1] in (["-h"], ["--help"]):
        print(HELP)
        return 0
    termination = Termination()
    termination.install()
    # Takes seconds: the signals are handled before.
    try:
        check_shared_memory()
        from d3_ros.ros.node.process import run
    except D3Error as error:
        print(f"predictor: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"predictor: {missing_package(error)}", file=sys.stderr)
        return 1
    return run(args, termination)


if __name__ == "__main__":
    sys.exit(main())

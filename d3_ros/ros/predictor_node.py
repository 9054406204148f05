"""`python -m d3_ros.ros.predictor_node`: the node's process. The node itself is in `ros/node/`."""

import sys

from d3_ros.ros.node.predictor_node import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

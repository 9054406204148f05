"""Everything that touches ROS: messages, parameters, the lifecycle node."""

import os

# The scale alignment solves small dense systems. BLAS would spread them over all cores, and its
# threads wait for each other in busy loops: on a machine with other work that takes twenty times
# longer. To be set before NumPy is imported; torch has threads of its own, which this leaves alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

"""Everything that touches ROS: messages, parameters, the lifecycle node."""

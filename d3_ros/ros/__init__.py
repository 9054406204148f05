"""What runs in ROS: the lifecycle node, its parameters, the synthetic robot, the launch files."""

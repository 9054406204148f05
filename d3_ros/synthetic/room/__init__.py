"""A furnished room with a robot in it, and the exact measurements of the robot's sensors."""

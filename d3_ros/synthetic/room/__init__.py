"""A furnished room that a robot drives through, and what its sensors measure there, exactly."""

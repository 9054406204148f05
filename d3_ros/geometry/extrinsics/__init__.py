"""Is an extrinsic calibration right? Depth edges of the sensor against edges of the image."""

"""The node's output topics: names, types, and which of them belong together."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float32MultiArray

RELATIVE = "~/depth/relative"
DEPTH = "~/depth/image"
DEPTH_INFO = "~/depth/camera_info"
DEPTH_COMPRESSED = f"{DEPTH}/compressedDepth"
UNCERTAINTY = "~/depth/uncertainty"
RGB = "~/rgb/image"
RGB_INFO = "~/rgb/camera_info"
NORMALS = "~/normals/image"
POINTS = "~/points"
NAV_POINTS = "~/points/nav"
DEPTH_COLOR = "~/depth/color"
DEPTH_JPEG = f"{DEPTH_COLOR}/compressed"
NORMALS_COLOR = "~/normals/color"
NORMALS_JPEG = f"{NORMALS_COLOR}/compressed"
SCALE = "~/scale"

# In the order in which they are published: cheap and urgent first.
TOPICS: dict[str, type] = {
    RELATIVE: Image,
    DEPTH: Image,
    DEPTH_INFO: CameraInfo,
    DEPTH_COMPRESSED: CompressedImage,
    UNCERTAINTY: Image,
    RGB: Image,
    RGB_INFO: CameraInfo,
    NORMALS: Image,
    NAV_POINTS: PointCloud2,
    POINTS: PointCloud2,
    DEPTH_COLOR: Image,
    DEPTH_JPEG: CompressedImage,
    NORMALS_COLOR: Image,
    NORMALS_JPEG: CompressedImage,
    SCALE: Float32MultiArray,
}

# Topics that need a metric scale, and topics that need a calibrated camera.
METRIC = frozenset(
    {DEPTH, DEPTH_INFO, DEPTH_COMPRESSED, UNCERTAINTY, RGB, RGB_INFO, POINTS, NAV_POINTS}
)
NEED_CAMERA = frozenset({DEPTH_INFO, RGB_INFO, POINTS, NAV_POINTS})
CLOUDS = frozenset({POINTS, NAV_POINTS})

# Topics that share a highest rate, so that pairs stay complete and a picture is made once.
CAPPED: dict[str, tuple[str, ...]] = {
    "depth": (DEPTH, DEPTH_INFO, DEPTH_COMPRESSED, UNCERTAINTY, RGB, RGB_INFO),
    "relative": (RELATIVE,),
    "normals": (NORMALS,),
    "points": (POINTS,),
    "nav points": (NAV_POINTS,),
    "depth color": (DEPTH_COLOR, DEPTH_JPEG),
    "normals color": (NORMALS_COLOR, NORMALS_JPEG),
    "scale": (SCALE,),
}

"""The messages of one frame, each made on demand; what two messages share is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from d3_ros.geometry.flying_pixels import flying_pixels
from d3_ros.geometry.light_cloud import clearing_points, far_pixels, light_cloud
from d3_ros.geometry.point_cloud import cloud_size, pack_cloud
from d3_ros.imaging.colour_maps import colour_depth, colour_normals
from d3_ros.messages.camera_info import output_camera_info
from d3_ros.messages.clouds import CloudBuffer, light_cloud_message
from d3_ros.messages.compressed import depth_message, jpeg_message
from d3_ros.messages.images import ImageBuffer
from d3_ros.ros.node.diagnostics.scale_report import ScaleReport, scale_message
from d3_ros.ros.node.frame import NodeFrame
from d3_ros.ros.topics import (
    DEPTH,
    DEPTH_COLOR,
    DEPTH_COMPRESSED,
    DEPTH_INFO,
    DEPTH_JPEG,
    NAV_POINTS,
    NORMALS,
    NORMALS_COLOR,
    NORMALS_JPEG,
    POINTS,
    RELATIVE,
    RGB,
    RGB_INFO,
    SCALE,
    TOPICS,
    UNCERTAINTY,
)
from d3_ros.types import CameraIntrinsics, DepthFrame


class Buffers:
    """The memory of large messages, which is kept from frame to frame."""

    def __init__(self) -> None:
        self.images = {topic: ImageBuffer() for topic, kind in TOPICS.items() if kind is Image}
        self.cloud = CloudBuffer()


class FrameMessages:
    """Makes the messages of one frame.

    A message is valid until the next frame's messages are made with the same `buffers`.
    """

    def __init__(
        self, frame: NodeFrame, depth: DepthFrame, scale: ScaleReport, buffers: Buffers
    ) -> None:
        self._frame = frame
        self._depth = depth
        self._header, self._settings = frame.header, frame.settings
        self._intrinsics = frame.request.intrinsics
        self._images, self._cloud = buffers.images, buffers.cloud
        self._make: dict[str, Callable[[], Any]] = {
            RELATIVE: self._relative,
            DEPTH: self._metric,
            DEPTH_INFO: self._camera_info,
            DEPTH_COMPRESSED: self._compressed_metric,
            UNCERTAINTY: self._uncertainty,
            RGB: self._rgb,
            RGB_INFO: self._camera_info,
            NORMALS: self._normals,
            NAV_POINTS: self._nav_points,
            POINTS: self._points,
            DEPTH_COLOR: self._depth_color,
            DEPTH_JPEG: self._depth_jpeg,
            NORMALS_COLOR: self._normals_color,
            NORMALS_JPEG: self._normals_jpeg,
            SCALE: lambda: scale_message(scale, frame.settings.scale.hold_s),
        }

    def make(self, topic: str) -> Any | None:
        """The message of one of `TOPICS`, or None where there is none.

        Topics in metres have none without a scale, and clouds none without a calibrated camera.
        """
        return self._make[topic]()

    def _relative(self) -> Image:
        return self._images[RELATIVE].fill(self._header, self._depth.relative, "32FC1")

    def _metric(self) -> Image | None:
        metric, header = self._depth.metric, self._header
        if metric is None:
            return None
        if self._settings.depth.encoding == "16UC1":
            return self._images[DEPTH].fill_millimetres(header, metric)
        return self._images[DEPTH].fill(header, metric, "32FC1")

    def _compressed_metric(self) -> CompressedImage | None:
        metric, settings = self._depth.metric, self._settings.depth
        if metric is None:
            return None
        return depth_message(
            self._header,
            metric,
            settings.encoding,
            settings.compressed.depth_max,
            settings.compressed.depth_quantization,
        )

    def _uncertainty(self) -> Image | None:
        uncertainty = self._depth.uncertainty
        if uncertainty is None:
            return None
        return self._images[UNCERTAINTY].fill(self._header, uncertainty, "32FC1")

    def _rgb(self) -> Image | None:
        if self._depth.metric is None:  # the pair of colour and depth image is complete or absent
            return None
        return self._images[RGB].fill(self._header, self._frame.request.rgb, "rgb8")

    def _camera_info(self) -> CameraInfo | None:
        """The calibration of the depth image and of the colour image, which is the same."""
        metric, info = self._depth.metric, self._frame.camera_info
        if metric is None or info is None:
            return None
        height, width = metric.shape
        return output_camera_info(
            info, self._header, width, height, rectified=self._frame.rectified
        )

    def _normals(self) -> Image | None:
        normals = self._depth.normals
        if normals is None:
            return None
        return self._images[NORMALS].fill(self._header, normals, "32FC3")

    def _points(self) -> PointCloud2 | None:
        metric, intrinsics = self._metric_of_clouds, self._intrinsics_of_clouds
        if metric is None or intrinsics is None:
            return None
        settings = self._settings.points
        normals = self._for_clouds(self._depth.normals if settings.normals else None)
        sigma = self._for_clouds(self._depth.uncertainty if settings.sigma else None)
        size = cloud_size(metric.shape[0], metric.shape[1], settings.stride)
        pack_cloud(
            metric,
            self._for_clouds(self._frame.request.rgb),
            normals,
            intrinsics,
            out=self._cloud.points(
                self._header, *size, normals=normals is not None, sigma=sigma is not None
            ),
            sigma_m=sigma,
            stride=settings.stride,
            min_range=settings.min_range,
            max_range=settings.max_range,
        )
        return self._cloud.message

    def _nav_points(self) -> PointCloud2 | None:
        metric, intrinsics = self._metric_of_clouds, self._intrinsics_of_clouds
        if metric is None or intrinsics is None:
            return None
        settings = self._settings.points.nav
        points = light_cloud(
            metric,
            intrinsics,
            stride=settings.stride,
            voxel_size=settings.voxel_size,
            min_range=settings.min_range,
            max_range=settings.max_range,
        )
        far = self._for_clouds(self._far_pixels())
        if far is not None:
            ends = clearing_points(
                far, intrinsics, stride=settings.stride, range_m=settings.clear_range
            )
            points = np.concatenate([points, ends])
        return light_cloud_message(self._header, points)

    def _far_pixels(self) -> np.ndarray | None:
        """(H, W) bool, the pixels whose rays are cleared; None where none are to be.

        Of the whole image, because saturated pixels are judged by all pixels just before them.
        """
        metric, intrinsics = self._solid_metric, self._intrinsics
        uncertainty, range_m = self._depth.uncertainty, self._settings.points.nav.clear_range
        if metric is None or intrinsics is None or uncertainty is None or range_m <= 0:
            return None
        return far_pixels(metric - uncertainty, self._depth.relative, intrinsics, range_m)

    def _for_clouds(self, plane: np.ndarray | None) -> np.ndarray | None:
        """The part of an (H, W, ...) array that the clouds hold."""
        region = self._frame.cloud_region
        return plane if plane is None or region is None else region.part_of(plane)

    @cached_property
    def _intrinsics_of_clouds(self) -> CameraIntrinsics | None:
        region, intrinsics = self._frame.cloud_region, self._intrinsics
        return intrinsics if intrinsics is None or region is None else intrinsics.cropped(*region)

    @cached_property
    def _metric_of_clouds(self) -> np.ndarray | None:
        return self._for_clouds(self._solid_metric)

    @cached_property
    def _solid_metric(self) -> np.ndarray | None:
        """(H, W) metres, without flying pixels where the parameter asks for that."""
        metric = self._depth.metric
        if metric is None or not self._settings.points.remove_flying:
            return metric
        return np.where(flying_pixels(metric), np.float32(np.nan), metric)

    # In colours, relative and metric depth look the same; relative depth is always there.
    @cached_property
    def _depth_picture(self) -> np.ndarray:
        return colour_depth(self._depth.relative)

    @cached_property
    def _normals_picture(self) -> np.ndarray | None:
        return None if self._depth.normals is None else colour_normals(self._depth.normals)

    def _depth_color(self) -> Image:
        return self._images[DEPTH_COLOR].fill(self._header, self._depth_picture, "rgb8")

    def _normals_color(self) -> Image | None:
        if self._normals_picture is None:
            return None
        return self._images[NORMALS_COLOR].fill(self._header, self._normals_picture, "rgb8")

    def _depth_jpeg(self) -> CompressedImage:
        return self._jpeg(self._depth_picture)

    def _normals_jpeg(self) -> CompressedImage | None:
        return None if self._normals_picture is None else self._jpeg(self._normals_picture)

    def _jpeg(self, picture: np.ndarray) -> CompressedImage:
        return jpeg_message(self._header, picture, self._settings.color.jpeg_quality)

"""Everything that exists between configure and cleanup: network, cameras, and the one worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from rclpy.lifecycle import LifecycleNode

from d3_ros.imaging.image_mask import ImageMask
from d3_ros.ros.node.camera import Camera
from d3_ros.ros.node.context import NodeContext
from d3_ros.ros.node.diagnostics import diagnostics
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.frame import NodeFrame, ReceivedImage
from d3_ros.ros.node.inputs.body_mask import BodyMask
from d3_ros.ros.node.inputs.input_topics import InputTopics
from d3_ros.ros.node.inputs.transforms import Transforms
from d3_ros.ros.node.network_guard import NetworkGuard
from d3_ros.ros.node.worker import LatestFrameWorker
from d3_ros.ros.parameters.node_settings import NodeSettings
from d3_ros.types import D3Prediction, Task


class Session:
    """The configured cameras of a node.

    Made by configure; `activate` and `deactivate` any number of times; `close` ends it.

    Args:
        node: the node.
        network: shared by all cameras; images that wait at the same time go through it together.
        settings: of each camera, by its name.
        topics: likewise.
        masks: likewise; None where nothing of its images is ignored.
        statistics: likewise.
        log: for the cameras' messages.
    """

    def __init__(
        self,
        node: LifecycleNode,
        network: NetworkGuard,
        settings: Mapping[str, NodeSettings],
        topics: Mapping[str, InputTopics],
        masks: Mapping[str, ImageMask | None],
        statistics: Mapping[str, FrameStatistics],
        log: ThrottledLogger,
    ) -> None:
        self.network = network
        self._statistics = statistics
        self._transforms = Transforms(node, log.warn)
        self._worker: LatestFrameWorker[ReceivedImage] = LatestFrameWorker(
            settings,
            self._process,
            drop=lambda name, _: statistics[name].dropped(),
            ready_in=lambda name, image: self.cameras[name].processor.ready_in(image),
            name="inference",
        )
        context = NodeContext(node, network, self._transforms, log)
        self.cameras: dict[str, Camera] = {}
        with ExitStack() as made:
            made.callback(self.close, timeout_s=0.0)
            for name, own in settings.items():
                submit = partial(self._worker.submit, name)
                mask = BodyMask(masks[name], topics[name].image)
                self.cameras[name] = Camera(
                    name,
                    topics[name],
                    own,
                    mask,
                    statistics[name],
                    context,
                    submit,
                    self._worker.wake,
                )
            made.pop_all()

    def activate(self) -> None:
        """Subscribe; the publishers must be active already."""
        for camera in self.cameras.values():
            camera.subscribe()

    def deactivate(self) -> None:
        """Unsubscribe and drop the images that wait."""
        for camera in self.cameras.values():
            camera.unsubscribe()
        self._worker.clear()

    def apply(self, settings: Mapping[str, NodeSettings]) -> None:
        """Take new values of the parameters that may change at any time."""
        for name, own in settings.items():
            camera = self.cameras[name]
            before, camera.state.settings = camera.state.settings.sensor_depth, own
            if (before.points, before.scan) != (own.sensor_depth.points, own.sensor_depth.scan):
                camera.processor.extrinsics_watch.reset()  # what it saw was placed otherwise

    def reset_scale(self) -> None:
        """Forget the metric scale of all cameras."""
        for camera in self.cameras.values():
            camera.processor.reset_scale()

    def enable(self, enabled: bool) -> None:
        """Process images, or let them pass."""
        for camera in self.cameras.values():
            camera.state.enabled = enabled

    def report(self, *, enabled: bool) -> diagnostics.Report:
        """The diagnostics of all cameras and the network; called once a second while active."""
        busy_s, fault = self._worker.busy_s, self._worker.fault
        figures = {}
        for name, camera in self.cameras.items():
            snapshot = self._statistics[name].snapshot()
            figures[name] = diagnostics.CameraFigures(
                snapshot,
                self._statistics[name].stage.percentiles(),
                camera.state.settings,
                sensor_depth_seen=camera.inputs.sensor_depth_seen,
                no_image_because=camera.watch_inputs(snapshot.since_input_s),
                extrinsics_fault=camera.processor.extrinsics_fault,
                busy_s=busy_s,
                busy_with=self._statistics[name].stage.running,
            )
        network = diagnostics.NetworkFigures(self.network.step, self.network.reason, fault)
        return diagnostics.active_report(figures, network, enabled=enabled)

    def close(self, timeout_s: float) -> bool:
        """Free everything; False where the network is still busy with its last frames.

        Those publish nothing, and the network's memory is freed with them.
        """
        self.deactivate()
        finished = self._worker.stop(timeout_s)
        self._transforms.close()
        for camera in self.cameras.values():
            camera.close()
        return finished

    def _process(self, images: dict[str, ReceivedImage]) -> None:
        """Images of different cameras, in the worker's thread."""
        frames: list[tuple[Camera, NodeFrame]] = []
        for name, image in images.items():
            frame = self.cameras[name].processor.prepare(image)
            if frame is not None:
                frames.append((self.cameras[name], frame))
        for tasks in dict.fromkeys(frame.tasks for _, frame in frames):
            together = [(camera, frame) for camera, frame in frames if frame.tasks == tasks]
            started = time.perf_counter()
            predictions = self._predict([frame for _, frame in together], tasks)
            network_ms = (time.perf_counter() - started) * 1e3
            for (camera, frame), prediction in zip(together, predictions, strict=True):
                if isinstance(prediction, Exception):
                    camera.processor.fail(prediction)
                else:
                    camera.processor.complete(frame, prediction, network_ms)

    def _predict(
        self, frames: list[NodeFrame], tasks: tuple[Task, ...]
    ) -> Sequence[D3Prediction | Exception]:
        try:
            return self.network.predict_each([frame.request.rgb for frame in frames], tasks)
        except Exception as error:  # a mistake in the guard itself must not lose count of frames
            return [error] * len(frames)

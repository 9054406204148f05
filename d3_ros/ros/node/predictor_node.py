"""The lifecycle node `predictor`: its states, parameters, services and diagnostics.

    configure   check parameters, load and warm up the network, create the publishers
    activate    subscribe
    deactivate, cleanup, shutdown mirror them; cleanup frees the network's memory

One thread runs the executor: callbacks only store. Inference has a thread of its own, so that no
transition, service or parameter waits for it.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from d3_ros.errors import D3Error
from d3_ros.imaging.image_mask import read_mask
from d3_ros.ros.node.diagnostics import diagnostics
from d3_ros.ros.node.diagnostics.statistics import FrameStatistics
from d3_ros.ros.node.diagnostics.throttled_logger import ThrottledLogger
from d3_ros.ros.node.graph import namesakes
from d3_ros.ros.node.inputs.input_topics import resolve_input_topics
from d3_ros.ros.node.loading import free_memory, load_network
from d3_ros.ros.node.network_guard import LoadedPredictor, NetworkGuard
from d3_ros.ros.node.session import Session
from d3_ros.ros.parameters.declaration import (
    LenientParameters,
    camera_names,
    changed,
    declare,
    fixed_after_configure,
    read,
    unknown,
)
from d3_ros.ros.parameters.node_settings import NodeSettings, settings_from
from d3_ros.ros.parameters.parameter_row import ParameterError

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
# How long a cleanup waits for the frame that is being processed.
LAST_FRAME_S = 5.0
# How long the diagnostics tell of an exception in a callback.
FAULT_SHOWN_S = 10.0
# How long a second node of this name must be seen. DDS announces a killed node for up to 20 s more,
# so a node that is started again sees its predecessor.
NAMESAKE_SEEN_S = 25.0


class PredictorNode(LenientParameters, LifecycleNode):
    """Depth, normals and metric clouds of one camera or several.

    `statistics`: counts and times of each camera's frames, by the camera's name.

    Args:
        load: makes the predictor from the settings, and logs what it does; tests pass another.
        **node_arguments: as for rclpy's Node (namespace, parameter_overrides, …).
    """

    def __init__(
        self,
        load: Callable[[NodeSettings, Callable[[str], object]], LoadedPredictor] = load_network,
        **node_arguments: Any,
    ) -> None:
        super().__init__(
            "predictor", automatically_declare_parameters_from_overrides=True, **node_arguments
        )
        self._load = load
        self._session: Session | None = None
        self._state = "unconfigured"
        self._failure = ""
        self._callback_fault = ""
        self._callback_fault_at = 0.0
        self._alone_at = time.monotonic()
        self._enabled = True
        self._log = ThrottledLogger(self.get_logger())
        self._faults = declare(self)
        self.statistics = {name: FrameStatistics() for name in camera_names(self)}
        for line in unknown(self):
            self.get_logger().warning(line)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_service(Trigger, "~/reset_scale", self._on_reset_scale)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._diagnostics = diagnostics.DiagnosticsPublisher(self)
        self.create_timer(
            diagnostics.PERIOD_S,
            self._watch,
            clock=Clock(clock_type=ClockType.STEADY_TIME),  # simulated time may stand still
        )

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check the parameters, load the network, create the publishers."""
        result = self._attempt("configure", self._configure, "inactive", FAILURE)
        if result != SUCCESS:
            self._release()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""

        def activate() -> None:
            assert self._session is not None
            super(PredictorNode, self).on_activate(state)  # opens the publishers
            self._session.activate()
            topics = [f"'{camera.topics.image}'" for camera in self._session.cameras.values()]
            self.get_logger().info(f"active, waiting for {' and '.join(topics)}")

        result = self._attempt("activate", activate, "active", FAILURE)
        if result != SUCCESS:
            self._pause(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the network stays loaded."""
        return self._attempt("deactivate", lambda: self._pause(state), "inactive", ERROR)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and destroy the publishers."""
        return self._attempt("cleanup", self._release, "unconfigured", ERROR)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything: from active, rclpy calls neither deactivate nor cleanup."""
        return self._attempt("shutdown", self._release, "finalized", ERROR)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, so that the node can be configured again."""
        failure = self._failure
        result = self._attempt("error processing", self._release, "unconfigured", ERROR)
        self._failure = failure or self._failure  # diagnostics go on telling what went wrong
        return result

    def start(self) -> None:
        """Configure and activate."""
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    @property
    def starts_by_itself(self) -> bool:
        """Whether the parameter `autostart` is set."""
        return bool(self.get_parameter("autostart").value)

    def close(self, timeout_s: float | None = None) -> bool:
        """Release everything before the process ends; False where the network is still busy."""
        return self._release(timeout_s)

    def report_fault(self, trace: str) -> None:
        """Log and report an exception that a callback of this node raised."""
        self._log.error(f"unexpected in a callback: {trace}")
        self._callback_fault = f"unexpected in a callback: {trace.strip().splitlines()[-1]}"
        self._callback_fault_at = time.monotonic()

    def _attempt(
        self,
        what: str,
        action: Callable[[], object],
        then: str,
        otherwise: TransitionCallbackReturn,
    ) -> TransitionCallbackReturn:
        """Run a transition's action and log its exceptions, which rclpy would not do."""
        try:
            action()
        except D3Error as error:
            self._failure = f"{what} failed: {error}"
            self.get_logger().error(self._failure)
            return otherwise
        except Exception as error:
            self._failure = f"{what} failed: {type(error).__name__}: {error}"
            if not self.context.ok():  # a signal shut ROS down meanwhile: no fault of the node
                return otherwise
            self.get_logger().error(f"{what} failed: {traceback.format_exc()}")
            return otherwise
        self._failure = ""
        self._state = then
        return SUCCESS

    def _configure(self) -> None:
        if self._faults:
            raise ParameterError("; ".join(self._faults.values()))
        values = read(self)
        settings = settings_from(values)
        self.get_logger().debug(f"parameters that are not the defaults: {changed(values)}")
        # Everything that can be wrong is checked before the network is loaded, which takes long,
        # and before a publisher is made, which would have to be destroyed again.
        of_cameras = self._settings_of_cameras(values)
        topics = {
            name: resolve_input_topics(self, own.image.transport, name)
            for name, own in of_cameras.items()
        }
        masks = {name: read_mask(own.image.mask, "image.mask") for name, own in of_cameras.items()}
        network = NetworkGuard(
            lambda chosen: self._load(chosen, self.get_logger().info), settings, self._log.warn
        )
        self._session = Session(
            self, network, of_cameras, topics, masks, self.statistics, self._log
        )
        self._session.enable(self._enabled)

    def _settings_of_cameras(self, values: Mapping[str, object]) -> dict[str, NodeSettings]:
        return {name: settings_from(values, name) for name in camera_names(self)}

    def _pause(self, state: LifecycleState) -> None:
        if self._session is not None:
            self._session.deactivate()
        super().on_deactivate(state)

    def _release(self, timeout_s: float | None = None) -> bool:
        """Free the session, if there is one."""
        timeout_s = LAST_FRAME_S if timeout_s is None else timeout_s
        session, self._session = self._session, None
        if session is None:
            return True
        finished = session.close(timeout_s)
        if not finished:
            self.get_logger().warning(
                f"the network is still busy after {timeout_s:g} s: its memory is freed when "
                "its last frame is done"
            )
        del session
        free_memory()
        return finished

    # Parameters, services, diagnostics

    def _on_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        present = read(self)
        names = [change.name for change in changes]
        changed = [c.name for c in changes if c.name in present and c.value != present[c.name]]
        cameras = camera_names(self)
        if self._session is not None and (fixed := fixed_after_configure(changed, cameras)):
            return SetParametersResult(
                successful=False,
                reason=f"parameter '{fixed[0]}' is read at configure: clean the node up first",
            )
        values = {**present, **{change.name: change.value for change in changes}}
        try:
            settings_from(values)
            of_cameras = self._settings_of_cameras(values)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in names:
            self._faults.pop(name, None)
        if self._session is not None:
            self._session.apply(of_cameras)
        return SetParametersResult(successful=True)

    def _on_reset_scale(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = self._session is not None
        if self._session is not None:
            self._session.reset_scale()
            response.message = "the metric scale is forgotten; new sensor depth gives a new one"
        else:
            response.message = "the node is not configured"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if self._session is not None:
            self._session.enable(self._enabled)
        response.success = True
        response.message = "enabled" if self._enabled else "paused: images are not processed"
        return response

    def _watch(self) -> None:
        """Once a second: check the inputs' publishers, and publish the diagnostics."""
        session = self._session
        if self._failure:
            report = diagnostics.plain_report(diagnostics.ERROR, self._failure)
        elif session is None or self._state != "active":
            report = diagnostics.plain_report(diagnostics.OK, self._state)
        else:
            report = session.report(enabled=self._enabled)
        report = diagnostics.with_node_faults(report, self._node_faults())
        self._diagnostics.publish(report, hardware_id=str(self.get_parameter("model").value))

    def _node_faults(self) -> list[str]:
        """What is wrong with the node as a whole, each in one line."""
        faults = []
        others = namesakes(self)
        if not others:
            self._alone_at = time.monotonic()
        elif time.monotonic() - self._alone_at > NAMESAKE_SEEN_S:
            name = self.get_fully_qualified_name()
            line = (
                f"{others + 1} nodes are called '{name}' and publish to the same topics: end one "
                "or give it another name or namespace"
            )
            self._log.error(line)
            faults.append(line)
        if self._callback_fault and time.monotonic() - self._callback_fault_at < FAULT_SHOWN_S:
            faults.append(self._callback_fault)
        return faults

"""One table of parameters: the YAML file agrees, the node declares it, values are checked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import yaml
from helpers.paths import ROOT
from helpers.ros_harness import Robot, ros_context
from rcl_interfaces.msg import ParameterType
from rclpy.node import Node
from rclpy.parameter import Parameter

from d3_ros.geometry.alignment import AlignmentSettings
from d3_ros.ros.parameters.declaration import declare
from d3_ros.ros.parameters.node_settings import PARAMETERS, NodeSettings, settings_from
from d3_ros.ros.parameters.parameter_row import ParameterError

pytestmark = pytest.mark.ros
ros = pytest.fixture(scope="module", autouse=True)(ros_context)

YAML = ROOT / "config" / "predictor.yaml"


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, tuple(value) if isinstance(value, list) else value


def test_the_yaml_file_has_every_parameter_with_its_default() -> None:
    content = yaml.safe_load(YAML.read_text(encoding="utf-8"))
    written = dict(flat(content["/**"]["ros__parameters"]))
    assert written == {name: row.default for name, row in PARAMETERS.items()}
    assert {n: type(v) for n, v in written.items()} == {
        n: type(row.default) for n, row in PARAMETERS.items()
    }


def test_the_yaml_file_explains_every_parameter() -> None:
    """Above each there is a comment, of its own or shared with the line before."""
    lines = [line.strip() for line in YAML.read_text(encoding="utf-8").splitlines()]
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#") and not line.endswith(":"):
            assert before and not before.endswith(":"), f"{line} has no comment"


def test_defaults_pass_their_own_checks() -> None:
    assert settings_from({}) == NodeSettings()
    assert settings_from({}).scale == AlignmentSettings()


def test_every_row_says_what_it_is() -> None:
    for row in PARAMETERS.values():
        descriptor = row.descriptor()
        assert len(row.setting.text) > 15
        assert row.setting.text in descriptor.description
        numeric = isinstance(row.default, (int, float)) and not isinstance(row.default, bool)
        ranges = len(descriptor.integer_range) + len(descriptor.floating_point_range)
        assert ranges == (1 if numeric else 0), row.name
        assert descriptor.read_only == (row.name in ("autostart", "cameras"))


def test_every_setting_of_the_alignment_is_a_parameter() -> None:
    assert {f"scale.{entry.name}" for entry in fields(AlignmentSettings)} <= set(PARAMETERS)
    assert settings_from({"scale.min_points": 20}).scale.min_points == 20


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("color.max_rate", 1000.0, "'color.max_rate' must be in [0.1, 100] Hz, got 1000.0"),
        ("color.max_rate", float("nan"), "'color.max_rate' must be in [0.1, 100] Hz, got nan"),
        ("color.max_rate", "fast", "'color.max_rate' must be float, got 'fast'"),
        ("color.max_rate", True, "'color.max_rate' must be float, got True"),
        ("input.queue_depth", 0, "'input.queue_depth' must be in [1, 100] messages, got 0"),
        ("input.queue_depth", 1.0, "'input.queue_depth' must be int, got 1.0"),
        ("depth.encoding", "8UC1", "'depth.encoding' must be one of 32FC1, 16UC1, got '8UC1'"),
        ("model", None, "'model' must be str, got None"),
        ("scale.hold_s", -1.0, "'scale.hold_s' must be in [0, 3600] s, got -1.0"),
        (
            "sensor_depth.points.T_camera_sensor",
            "1 2 3",
            "'sensor_depth.points.*': T_camera_sensor must be 7 numbers, x y z qx qy qz qw: got 3",
        ),
        ("sensor_depth.scan.T_camera_sensor", "0 0 0 0 0 0 2", "of length 1, is 2"),
        ("sensor_depth.scan.T_camera_sensor", "0 0 0 0 0 0 w", "could not convert"),
        ("sensor_depth.max_range", 0.1, "'sensor_depth.*': min_range 0.1 must be below max_range"),
        ("scale.min_depth", 90.0, "'scale.*': min_depth 90.0 must be below max_depth"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: object, words: str) -> None:
    with pytest.raises(ParameterError) as told:
        settings_from({name: value})
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_an_integer_is_good_for_a_float() -> None:
    rate = settings_from({"color.max_rate": 5}).color.max_rate
    assert (rate, type(rate)) == (5.0, float)


def test_a_node_declares_the_whole_table(ros: None) -> None:
    node = Node("declares")
    assert declare(node) == {}
    for name, row in PARAMETERS.items():
        assert row.checked(node.get_parameter(name).value) == row.default
        described = node.describe_parameter(name)
        assert row.setting.text in described.description
        assert described.type != ParameterType.PARAMETER_NOT_SET
    node.destroy_node()


def test_bad_start_values_are_told_and_do_not_end_the_process() -> None:
    bad = {"color.max_rate": 1e6, "input.queue_depth": "many", "depth.encoding": "8UC1"}
    node = Node(
        "bad",
        parameter_overrides=[Parameter(n, value=v) for n, v in bad.items()],
        automatically_declare_parameters_from_overrides=True,
    )
    faults = declare(node)
    assert set(faults) == set(bad)
    assert faults["color.max_rate"].endswith("must be in [0.1, 100] Hz, got 1000000.0")
    for name in bad:
        assert node.get_parameter(name).value == PARAMETERS[name].default
    node.destroy_node()


def test_a_bad_start_value_fails_configure_until_it_is_mended() -> None:
    with Robot(parameters={"input.queue_depth": 1000}, start=False) as robot:
        assert not robot.change("configure")
        robot.wait_for_line("configure failed: parameter 'input.queue_depth' must be in [1, 100]")
        assert robot.state() == "unconfigured"
        assert robot.node.set_parameters([Parameter("input.queue_depth", value=2)])[0].successful
        assert robot.change("configure")
        assert robot.state() == "inactive"


def test_what_configure_read_cannot_change_until_cleanup() -> None:
    with Robot() as robot:
        result = robot.node.set_parameters([Parameter("model", value="other")])[0]
        assert not result.successful
        assert result.reason == "parameter 'model' is read at configure: clean the node up first"
        assert robot.node.set_parameters([Parameter("color.max_rate", value=9.0)])[0].successful
        assert not robot.node.set_parameters([Parameter("color.max_rate", value=-9.0)])[
            0
        ].successful
        assert robot.change("deactivate")
        assert robot.change("cleanup")
        assert robot.node.set_parameters([Parameter("model", value="other")])[0].successful


def test_autostart_is_read_only() -> None:
    with Robot(start=False) as robot:
        result = robot.node.set_parameters([Parameter("autostart", value=True)])[0]
        assert not result.successful


def test_values_that_a_parameter_has_already_are_accepted() -> None:
    """As `ros2 param load` sends them after `ros2 param dump`; also while configured."""
    with Robot() as robot:
        for name in (*PARAMETERS, "use_sim_time"):
            same = robot.node.get_parameter(name)
            result = robot.node.set_parameters_atomically([same])
            assert result.successful, (name, result.reason)
        assert not robot.node.set_parameters_atomically(
            [robot.node.get_parameter("cameras"), Parameter("model", value="other")]
        ).successful


def test_a_parameter_cannot_be_deleted() -> None:
    parameters = {"cameras": ["front"], "front.color.max_rate": 1.0}
    with Robot(parameters=parameters, start=False) as robot:
        for name in ("color.max_rate", "front.color.max_rate", "cameras"):
            result = robot.node.set_parameters_atomically([Parameter(name)])
            assert result.reason.startswith(f"parameter '{name}' cannot be deleted"), result
            assert robot.node.get_parameter(name).value is not None
        # A camera's own parameter that is not set, as a dump has it.
        unset = Parameter("front.depth.max_rate")
        assert robot.node.set_parameters_atomically([unset]).successful
        # The same as `ros2 param load` sends it.
        none = Parameter(unset.name, value="None")
        assert robot.node.set_parameters_atomically([none]).successful
        assert robot.node.has_parameter(unset.name)
        assert robot.node.get_parameter(unset.name).value is None


def test_a_misspelt_parameter_is_told() -> None:
    with Robot(parameters={"color.max_rat": 3.0, "zzz": 1}, start=False) as robot:
        robot.wait_for_line("there is no parameter 'color.max_rat': did you mean 'color.max_rate'?")
        robot.wait_for_line("there is no parameter 'zzz', see config/predictor.yaml")
        assert not robot.said("use_sim_time")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "must be different names, or one empty one, got []"),
        (["a", "a"], "must be different names"),
        (["", "a"], "must be different names"),
        (["front-left"], "'front-left' cannot be a camera's name"),
        (["points"], "'points' cannot be a camera's name"),
        ("front", "must be a list of str, got 'front'"),
        ([1], "must be a list of str"),
    ],
)
def test_impossible_cameras_are_refused(names: object, words: str) -> None:
    with pytest.raises(ParameterError) as told:
        settings_from({"cameras": names})
    assert words in str(told.value)


def test_a_camera_may_have_parameters_of_its_own() -> None:
    values = {
        "cameras": ["front", "rear"],
        "ground.camera_height": 1.0,
        "front.ground.camera_height": 0.3,
        "front.points.normals": True,
        "rear.points.normals": None,  # declared, and not set
    }
    front, rear = settings_from(values, "front"), settings_from(values, "rear")
    assert (front.ground.camera_height, rear.ground.camera_height) == (0.3, 1.0)
    assert (front.points.normals, rear.points.normals) == (True, False)
    with pytest.raises(ParameterError, match=r"'front\.points\.normals' must be bool"):
        settings_from({**values, "front.points.normals": 3}, "front")


def test_a_camera_s_own_parameters_describe_themselves() -> None:
    """`ros2 param describe` shows the same of front.color.max_rate as of color.max_rate."""
    given = {"cameras": ["front", "rear"], "front.color.max_rate": 1.0, "rear.points.stride": 0}
    node = Node(
        "of_cameras",
        parameter_overrides=[Parameter(n, value=v) for n, v in given.items()],
        automatically_declare_parameters_from_overrides=True,
    )
    assert declare(node) == {
        "rear.points.stride": "parameter 'rear.points.stride' must be in [1, 64] pixels, got 0"
    }
    assert node.get_parameter("front.color.max_rate").value == 1.0
    for name in ("front.color.max_rate", "rear.color.max_rate"):
        described = node.describe_parameter(name)
        assert described.description.startswith(PARAMETERS["color.max_rate"].setting.text)
        assert described.description.endswith("Not set: as 'color.max_rate'.")
        (allowed,) = described.floating_point_range
        assert (allowed.from_value, allowed.to_value) == (0.1, 100.0)
    choices = node.describe_parameter("rear.depth.encoding").additional_constraints
    assert choices == "One of 32FC1, 16UC1."
    assert node.get_parameter("rear.points.stride").value is None
    assert not node.set_parameters([Parameter("rear.points.stride", value=65)])[0].successful
    assert node.set_parameters([Parameter("rear.points.stride", value=2)])[0].successful
    node.destroy_node()


def test_parameters_of_cameras_are_declared_and_followed() -> None:
    parameters = {"cameras": ["front", "rear"], "front.color.max_rate": 1.0}
    with Robot(parameters=parameters, start=False) as robot:
        assert robot.node.has_parameter("rear.color.max_rate")
        assert robot.node.get_parameter("rear.color.max_rate").value is None
        assert not robot.said("there is no parameter")
        assert robot.change("configure")
        cameras = robot.node._session.cameras
        assert [cameras[n].state.settings.color.max_rate for n in ("front", "rear")] == [1.0, 5.0]
        change = robot.node.set_parameters([Parameter("rear.color.max_rate", value=2.0)])[0]
        assert change.successful, change.reason
        assert [cameras[n].state.settings.color.max_rate for n in ("front", "rear")] == [1.0, 2.0]
        change = robot.node.set_parameters([Parameter("rear.color.max_rate", value=-2.0)])[0]
        assert change.reason.startswith("Parameter rear.color.max_rate out of range Min: 0.1")
        fixed = robot.node.set_parameters([Parameter("rear.image.rectified", value=True)])[0]
        assert fixed.reason.startswith("parameter 'rear.image.rectified' is read at configure")

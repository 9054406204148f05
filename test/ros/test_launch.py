"""The launch files: what they promise, and what they decide from their arguments."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from helpers.launched import install, needs_launch
from helpers.paths import ROOT

from d3_ros.ros import fast_dds
from d3_ros.ros.launch_arguments import (
    HANDED_ON,
    PARAMETER_ARGUMENTS,
    PREDICTOR_ARGUMENTS,
    SYNTHETIC_ARGUMENTS,
    SYNTHETIC_PARAMETERS,
    SYNTHETIC_SENSORS,
    TOPIC_ARGUMENTS,
)
from d3_ros.ros.launching import (
    camera_info_beside,
    check_exit,
    check_names,
    full_name,
    plan_predictor,
    read_parameters,
)
from d3_ros.ros.node.inputs.input_topics import SENSOR_TOPICS
from d3_ros.ros.parameters.node_settings import PARAMETERS, settings_from
from d3_ros.ros.synthetic import robot_settings as synthetic_settings
from d3_ros.ros.synthetic.launching import synthetic_parameters
from d3_ros.ros.topics import TOPICS

pytestmark = pytest.mark.ros

LAUNCH = ROOT / "launch" / "predictor.launch.py"
SYNTHETIC = ROOT / "launch" / "synthetic.launch.py"
PRESETS = sorted((ROOT / "config" / "presets").glob("*.yaml"))
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
INPUTS = {"image", "camera_info", *(topic for _, topic in SENSOR_TOPICS.values())}


def given(**arguments: str) -> dict[str, str]:
    """The arguments of predictor.launch.py, these and the others' defaults."""
    return {name: default for name, (default, _) in PREDICTOR_ARGUMENTS.items()} | arguments


def given_synthetic(**arguments: str) -> dict[str, str]:
    """The arguments of synthetic.launch.py, these and the others' defaults."""
    return {name: default for name, (default, _) in SYNTHETIC_ARGUMENTS.items()} | arguments


def executables(path: Path) -> set[str]:
    """The executables of this package that a launch file names."""
    found = set()
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call):
            words = {k.arg: k.value for k in call.keywords}
            if {"package", "executable"} <= set(words):
                package, name = (ast.literal_eval(words[key]) for key in ("package", "executable"))
                found |= {name} if package == "d3_ros" else set()
    return found


def test_the_launch_files_start_what_is_installed() -> None:
    assert executables(LAUNCH) == {"predictor"}
    assert executables(SYNTHETIC) == {"synthetic_camera"}
    assert '"predictor = d3_ros.ros.predictor_node:main"' in SETUP
    assert '"synthetic_camera = d3_ros.ros.synthetic.synthetic_camera:main"' in SETUP


def test_arguments_are_topics_and_parameters_that_exist() -> None:
    assert set(TOPIC_ARGUMENTS.values()) == INPUTS
    assert {*TOPIC_ARGUMENTS, *PARAMETER_ARGUMENTS} <= set(PREDICTOR_ARGUMENTS)
    assert set(PARAMETER_ARGUMENTS) <= set(PARAMETERS)
    assert set(SYNTHETIC_SENSORS.values()) < set(synthetic_settings.PARAMETERS)
    assert set(SYNTHETIC_PARAMETERS) < set(synthetic_settings.PARAMETERS)
    assert set(HANDED_ON) < set(PREDICTOR_ARGUMENTS)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_has_inputs_and_parameters_of_the_node(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    preset = yaml.safe_load(text)
    assert set(preset) == {"frame", "topics", "parameters"}
    assert set(preset["topics"]) <= INPUTS
    assert all(topic.startswith("/") for topic in preset["topics"].values())
    sim_time = preset["parameters"].pop("use_sim_time", False)
    assert sim_time == (path.stem == "gazebo")
    assert set(preset["parameters"]) <= set(PARAMETERS)
    settings_from(preset["parameters"])
    assert "ros2 " in text, "it says how its driver is started"
    assert re.search(r"\d+\.\d+\.\d+", text), "and which version has these names"


def test_rviz_shows_topics_that_the_node_publishes() -> None:
    config = yaml.safe_load((ROOT / "config" / "predictor.rviz").read_text(encoding="utf-8"))
    shown = {
        display["Topic"]["Value"]: display["Class"].split("/")[1]
        for display in config["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    kinds = {
        "image": "Image",
        **{name.replace("~", "predictor"): kind.__name__ for name, kind in TOPICS.items()},
    }
    assert {name: kinds[name] for name in shown} == shown
    assert {"predictor/points", "predictor/depth/uncertainty"} <= set(shown)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is found as colcon would install it."""
    for name, value in install(tmp_path / "install").items():
        monkeypatch.setenv(name, value)


def launch_module(path: Path = LAUNCH) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def actions_with(path: Path = LAUNCH, **arguments: str) -> list[Any]:
    """What the launch file would do with these arguments."""
    from launch import LaunchContext

    module, context = launch_module(path), LaunchContext()
    for argument in module.generate_launch_description().get_launch_arguments():
        argument.execute(context)
    context.launch_configurations.update(arguments)
    return module.start(context)


CONFIG = ROOT / "config"


def remapped(**arguments: str) -> dict[str, str]:
    """Where the node's inputs come from with these arguments."""
    return dict(plan_predictor(given(**arguments), CONFIG).remappings)


def test_what_is_given_wins_over_the_preset() -> None:
    assert remapped() == {"camera_info": "camera_info"}
    oak = {"image": "/oak/rgb/image_raw", "sensor_depth/image": "/oak/stereo/image_raw"}
    assert remapped(preset="oak") == {**oak, "camera_info": "/oak/rgb/camera_info"}
    assert remapped(preset="oak", image="/a/b", sensor_scan="/scan") == {
        "image": "/a/b",
        "camera_info": "/a/camera_info",
        "sensor_depth/image": "/oak/stereo/image_raw",
        "sensor_depth/scan": "/scan",
    }
    assert remapped(image="/a/b", camera_info="/c")["camera_info"] == "/c"


def test_several_cameras_have_a_topic_each() -> None:
    assert remapped(cameras="front,rear", image="/f/image, /r/image", sensor_points="/l,/l") == {
        "front/image": "/f/image",
        "rear/image": "/r/image",
        "front/camera_info": "/f/camera_info",
        "rear/camera_info": "/r/camera_info",
        "front/sensor_depth/points": "/l",
        "rear/sensor_depth/points": "/l",
    }
    with pytest.raises(RuntimeError, match="names 1 topics for 2 cameras"):
        remapped(cameras="front,rear", image="/f/image")


def test_a_preset_may_be_a_file_and_must_be_one(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text("topics: {image: /mine}\n")
    assert remapped(preset=str(own))["image"] == "/mine"
    own.write_text("topics: {imgae: /mine}\n")
    with pytest.raises(RuntimeError, match="has 'imgae', which is no key or input"):
        remapped(preset=str(own))
    with pytest.raises(RuntimeError, match="no preset 'kinect': use one of gazebo, oak"):
        remapped(preset="kinect")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"topics: [", "expected the node content"),
        (b"topics: {image: '\xff'}", "can't decode byte"),
        (b"- image", "must have keys: frame, topics, parameters"),
        (b"topics: [/image]", "below 'topics:' there must be lines 'name: value'"),
        (b"parameters: 3", "below 'parameters:' there must be lines 'name: value'"),
    ],
)
def test_a_preset_file_that_is_none_is_told_in_one_line(
    content: bytes, message: str, tmp_path: Path
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_bytes(content)
    with pytest.raises(RuntimeError) as refused:
        remapped(preset=str(own))
    assert f"preset '{own}'" in str(refused.value) and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_parameters_come_from_defaults_then_preset_then_file_then_arguments(
    tmp_path: Path,
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("{}")
    plan = plan_predictor(
        given(preset="zed", params_file=str(mine), dtype="fp32", cameras="a, b"), CONFIG
    )
    assert plan.parameters == [
        str(CONFIG / "predictor.yaml"),
        {"image.rectified": True},
        str(mine),
        {"use_sim_time": False, "autostart": False, "dtype": "fp32", "cameras": ["a", "b"]},
    ]


def test_who_configures_the_node() -> None:
    by_events = plan_predictor(given(), CONFIG)
    assert (by_events.by_events, by_events.parameters[-1]["autostart"]) == (True, False)
    # A node that comes back starts by itself, without events that would reach the old process.
    comes_back = plan_predictor(given(respawn="true"), CONFIG)
    assert (comes_back.by_events, comes_back.respawn) == (False, True)
    assert comes_back.parameters[-1]["autostart"]
    nobody = plan_predictor(given(autostart="false", respawn="true"), CONFIG)
    assert (nobody.by_events, nobody.parameters[-1]["autostart"]) == (False, False)


def test_time_and_rviz_s_frame_come_from_argument_or_preset() -> None:
    assert plan_predictor(given(preset="gazebo"), CONFIG).use_sim_time
    assert not plan_predictor(given(preset="gazebo", use_sim_time="false"), CONFIG).use_sim_time
    assert plan_predictor(given(), CONFIG).rviz_frame is None
    assert plan_predictor(given(rviz="true"), CONFIG).rviz_frame == "camera_optical_frame"
    frame = plan_predictor(given(rviz="true", rviz_frame="map"), CONFIG).rviz_frame
    assert frame == "map"
    with pytest.raises(RuntimeError, match="rviz:=maybe must be true or false"):
        plan_predictor(given(rviz="maybe"), CONFIG)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"log_level": "verbose"}, "log_level:=verbose must be one of debug, info, warn"),
        ({"params_file": "/no/such.yaml"}, "params_file:=/no/such.yaml: .*No such file"),
        ({"autostart": "si"}, "autostart:=si must be true or false"),
        ({"dtype": "fp99"}, "dtype:=fp99 must be one of auto, fp32, fp16, bf16, int8$"),
        ({"device": "foo"}, "device:=foo must be one of auto, cpu, cuda, cuda:N$"),
        ({"device": "cuda:"}, "device:=cuda: must be one of"),
        ({"model": "nope"}, "model:=nope: unknown model 'nope': there are .*d3_nano"),
        ({"model": "/no/such"}, "model:=/no/such: /no/such is not a folder"),
        ({"cameras": "a,a"}, "cameras:=a,a: must be different names"),
        ({"cameras": "front-left"}, "cameras:=front-left: 'front-left' cannot be a camera's name"),
        ({"cameras": "points"}, "cameras:=points: 'points' cannot be a camera's name"),
    ],
)
def test_wrong_values_are_refused_before_anything_starts(
    arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        plan_predictor(given(**arguments), CONFIG)


def test_values_that_the_node_takes_are_taken(tiny_bundle: Path) -> None:
    for dtype in PARAMETERS["dtype"].setting.choices:
        plan_predictor(given(dtype=dtype), CONFIG)
    for device in ("auto", "cpu", "cuda", "cuda:1"):
        plan_predictor(given(device=device), CONFIG)
    for model in ("d3_nano", str(tiny_bundle)):
        assert plan_predictor(given(model=model), CONFIG).parameters[-1]["model"] == model


def test_the_predictor_s_launch_file_imports_nothing_heavy() -> None:
    """It stays in memory as long as the node runs."""
    heavy = ("torch", "onnxruntime", "cv2", "scipy", "numpy", "rclpy")
    code = (
        "import sys, d3_ros.ros.launching, d3_ros.ros.launch_actions, d3_ros.ros.fast_dds\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"


def test_a_file_of_parameters_must_have_their_sections(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("use_sim_time: true\n")
    with pytest.raises(RuntimeError, match=r"no ROS parameter file: .* '/\*\*:'"):
        plan_predictor(given(params_file=str(mine)), CONFIG)
    mine.write_text("/**:\n  ros__parameters:\n    use_sim_time: true\n")
    assert plan_predictor(given(params_file=str(mine)), CONFIG).use_sim_time
    argument = given(params_file=str(mine), use_sim_time="false")
    assert not plan_predictor(argument, CONFIG).use_sim_time


def test_a_node_that_fails_makes_the_launch_fail() -> None:
    check_exit("/front/predictor", 0)
    with pytest.raises(RuntimeError, match="the node /front/predictor failed with exit code 1"):
        check_exit("/front/predictor", 1)
    with pytest.raises(RuntimeError, match="the node /synthetic_camera was ended by signal 9"):
        check_exit("/synthetic_camera", -9)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("imgae:=/a", r"has no argument imgae:=; did you mean image:=\?"),
        ("foo:=bar", r"has no argument foo:=; there are autostart, camera_info"),
        (
            "ground.camera_height:=0.35",
            r"ground\.camera_height is a parameter of the node\. Write it into a file, for example "
            r"'/\*\*: \{ros__parameters: \{ground: \{camera_height: 0\.35\}\}\}', and name the "
            r"file: params_file:=",
        ),
        ("processing_size:=240x320", r"\{processing_size: 240x320\}\}"),
        ("points.nav.max_rnage:=3", r"points\.nav\.max_range is a parameter"),
        ("some.thing:=1", r"parameters of a node go into a file"),
    ],
)
def test_unknown_arguments_are_refused_with_a_hint(argument: str, hint: str) -> None:
    command = ["ros2", "launch", "d3_ros", LAUNCH.name, argument]
    with pytest.raises(RuntimeError, match=hint):
        check_names(command, LAUNCH.name, PREDICTOR_ARGUMENTS, CONFIG)


def test_known_arguments_and_those_of_another_launch_file_are_no_fault() -> None:
    command = ["ros2", "launch", "d3_ros", LAUNCH.name, "image:=/a", "launch-prefix:=nice"]
    command.append("sigterm_timeout:=9")
    check_names(command, LAUNCH.name, PREDICTOR_ARGUMENTS, CONFIG)
    # Included by another launch file, whose arguments are its own.
    check_names(["ros2", "launch", "mine.py", "foo:=1"], LAUNCH.name, PREDICTOR_ARGUMENTS, CONFIG)


def test_an_example_of_a_parameter_file_is_one(tmp_path: Path) -> None:
    """What the hint says to write gives the parameter."""
    with pytest.raises(RuntimeError) as told:
        check_names([LAUNCH.name, "points.nav.max_range:=3.5"], LAUNCH.name, (), CONFIG)
    (example,) = re.findall("'(.+)'", str(told.value))
    mine = tmp_path / "mine.yaml"
    mine.write_text(example)
    assert read_parameters(str(mine), "/predictor") == {"points.nav.max_range": 3.5}


def test_the_log_level_is_that_of_this_node_alone() -> None:
    chosen = given(log_level="debug", namespace="/robot/front", name="depth")
    assert plan_predictor(chosen, CONFIG).ros_arguments == [
        "--log-level",
        "robot.front.depth:=debug",
    ]
    # Included below PushRosNamespace.
    assert plan_predictor(given(), CONFIG, "/robot").ros_arguments[1] == "robot.predictor:=info"
    assert full_name("/robot", "/front", "predictor") == "/front/predictor"


def test_sections_of_other_nodes_do_not_count(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "/**/predictor: {ros__parameters: {device: cpu}}\n"
        "front: {predictor: {ros__parameters: {dtype: fp32}}}\n"
        "/*: {ros__parameters: {model: a}}\n"
        "local_costmap: {local_costmap: {ros__parameters: {use_sim_time: true}}}\n"
    )
    assert read_parameters(str(mine), "/front/predictor") == {"device": "cpu", "dtype": "fp32"}
    assert read_parameters(str(mine), "/predictor") == {"device": "cpu", "model": "a"}
    assert not plan_predictor(given(params_file=str(mine)), CONFIG).use_sim_time


def test_the_profile_is_set_unless_the_user_chose_himself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fast_dds, "has_shared_memory", lambda: True)
    profile = CONFIG / "fastdds.xml"
    assert fast_dds.profile_variables(profile, {}) == {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
    }
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS"):
        assert fast_dds.profile_variables(profile, {name: "mine"}) == {}
    (tmp_path / "DEFAULT_FASTRTPS_PROFILES.xml").touch()
    assert fast_dds.profile_variables(profile, {}) == {}


def test_the_synthetic_robot_has_the_sensors_that_are_asked_for() -> None:
    assert synthetic_parameters(given_synthetic()) == {"points_rate": 0.0, "scan_rate": 0.0}
    chosen = given_synthetic(sensors="points,scan", width="320", speed="0.1")
    assert synthetic_parameters(chosen) == {"sensor_share": 0.0, "width": 320, "speed": 0.1}
    assert set(synthetic_parameters(given_synthetic(sensors="none"))) == set(
        SYNTHETIC_SENSORS.values()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sensors": "radar"}, "no sensor 'radar'"),
        ({"width": "abc"}, "width:=abc must be a whole number"),
        ({"height": "20.5"}, "height:=20.5 must be a whole number"),
        ({"speed": "fast"}, "speed:=fast must be a number"),
        ({"width": "5"}, r"width:=5 must be in \[16, 4096\] pixels, got 5$"),
        ({"height": "5000"}, "height:=5000 must be in"),
        ({"seed": "-1"}, "seed:=-1 must be in"),
        ({"image_rate": "0"}, "image_rate:=0 must be in"),
        ({"speed": "nan"}, "speed:=nan must be in"),
    ],
)
def test_wrong_values_of_the_synthetic_robot_are_refused(
    arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        synthetic_parameters(given_synthetic(**arguments))


@pytest.mark.parametrize("name", SYNTHETIC_PARAMETERS)
def test_the_synthetic_robot_s_ranges_are_those_of_its_settings(name: str) -> None:
    """What the launch file takes, the camera takes, from the first to the last value."""
    row = synthetic_settings.PARAMETERS[name]
    for value in (row.setting.low, row.setting.high):
        text = str(type(row.default)(value))
        assert row.checked(synthetic_parameters(given_synthetic(**{name: text}))[name]) == value


@needs_launch
@pytest.mark.usefixtures("installed")
def test_the_synthetic_launch_file_starts_camera_and_predictor() -> None:
    handlers = ["RegisterEventHandler"] * 2  # Ctrl-C, and the end of the camera
    kinds = [type(action).__name__ for action in actions_with(SYNTHETIC)]
    assert kinds == ["IncludeLaunchDescription", *handlers, "Node"]
    alone = [type(action).__name__ for action in actions_with(SYNTHETIC, predictor="false")]
    assert alone == [*handlers, "Node"]


@needs_launch
@pytest.mark.usefixtures("installed")
def test_arguments_decide_what_is_started() -> None:
    from launch_ros.actions import LifecycleNode

    kinds = [type(action).__name__ for action in actions_with()]
    assert kinds == [*["RegisterEventHandler"] * 4, "LifecycleNode"]
    assert [type(a) for a in actions_with(autostart="false")][2:] == [LifecycleNode]
    # It comes back by itself, without events that would get lost with the old process.
    assert [type(a) for a in actions_with(respawn="true")][1:] == [LifecycleNode]


@needs_launch
@pytest.mark.usefixtures("installed")
def test_rviz_is_started_where_it_is_installed(tmp_path: Path) -> None:
    from launch_ros.actions import Node

    index = tmp_path / "install" / "share" / "ament_index" / "resource_index" / "packages"
    (index / "rviz2").touch()
    (index.parents[2] / "rviz2").mkdir()
    (viewer,) = (a for a in actions_with(rviz="true") if type(a) is Node)
    assert viewer.node_package == "rviz2"


@pytest.mark.parametrize(
    ("image", "camera_info"),
    [("/a/image_raw", "/a/camera_info"), ("image", "camera_info"), ("a/b/c", "a/b/camera_info")],
)
def test_the_calibration_is_beside_the_image(image: str, camera_info: str) -> None:
    assert camera_info_beside(image) == camera_info


PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{page}.md" for page in ("field-guide", "consumers", "node")),
]


LAUNCH_ARGUMENTS = {
    LAUNCH.name: set(PREDICTOR_ARGUMENTS),
    SYNTHETIC.name: {*SYNTHETIC_ARGUMENTS, *HANDED_ON},
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_links_and_parameters_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = re.findall(r"ros2 launch d3_ros\s+(\S+\.launch\.py)((?:[^`\n]|\\\n)*)", text)
    for name, rest in commands:
        used = re.findall(r"(\w+):=", rest.partition("#")[0])
        assert set(used) <= LAUNCH_ARGUMENTS[name], (name, used)
    for preset in re.findall(r"preset:=(\w+)", text):
        assert preset in {path.stem for path in PRESETS}
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    groups = {name.partition(".")[0] for name in PARAMETERS if "." in name}
    for name in re.findall(r"`([a-z_]+\.[a-zA-Z_.]+?)[:`]", text):
        if name.partition(".")[0] in groups:
            assert any(row == name or row.startswith(f"{name}.") for row in PARAMETERS), name


def parameters_of(section: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a section by ROS name."""

    def flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in values.items():
            own = {f"{prefix}{name}": value}
            found.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else own)
        return found

    return flat(section["ros__parameters"], "")


@pytest.mark.parametrize("name", ["nav2_costmap", "rtabmap"])
def test_a_recipe_names_outputs_and_parameters_of_the_node(name: str) -> None:
    text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    own = parameters_of(recipe["/**/predictor"])
    assert set(own) <= set(PARAMETERS)
    settings_from(own)
    named = set(re.findall(r"/predictor/([a-z_/]+)", text))
    assert named
    assert {f"~/{topic}" for topic in named} <= set(TOPICS)


def test_the_nav2_recipe_clears_where_it_sees_and_marks_only_obstacles() -> None:
    """The order of distances that docs/consumers.md asks for, and heights that are set."""
    recipe = yaml.safe_load((ROOT / "config" / "nav2_costmap.yaml").read_text(encoding="utf-8"))
    costmap = recipe["local_costmap"]["local_costmap"]["ros__parameters"]
    layer = costmap["voxel_layer"]
    marks, clears = (layer[source] for source in layer["observation_sources"].split())
    nav = recipe["/**/predictor"]["ros__parameters"]["points"]["nav"]
    assert nav["max_range"] <= marks["obstacle_max_range"] < nav["clear_range"]
    assert nav["clear_range"] <= clears["raytrace_max_range"]
    assert 0 < marks["min_obstacle_height"] < marks["max_obstacle_height"]
    assert marks["max_obstacle_height"] <= layer["z_voxels"] * layer["z_resolution"] + 1e-9
    assert layer["z_voxels"] <= 16
    assert nav["voxel_size"] <= min(costmap["resolution"], layer["z_resolution"])

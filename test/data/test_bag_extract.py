"""From a bag to a folder to train on: topics, transforms, choice of frames, interruptions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers import bag_messages as bags
from helpers import pictures
from helpers.paths import ROOT
from rosbags.rosbag2 import StoragePlugin

from d3_ros.__main__ import main
from d3_ros.data import plain_folder
from d3_ros.data.bag.camera import BagCamera, BagCameraOptions
from d3_ros.data.bag.extract import ExtractOptions, extract, split_by_time
from d3_ros.data.bag.transforms import StaticTransforms
from d3_ros.data.frame_set import FrameSet
from d3_ros.errors import DataError, MessageError
from d3_ros.imaging.image_file import read_rgb
from d3_ros.messages.compressed import rgb_from_compressed
from d3_ros.types import CameraIntrinsics

START, SECOND = 1_700_000_000_000_000_000, 1_000_000_000
# The optical frame (x right, y down, z forward) in a body frame (x forward, y left, z up).
OPTICAL_IN_BODY = (-0.5, 0.5, -0.5, 0.5)
WIDTH, HEIGHT = 64, 48
ALL = ExtractOptions(every_s=0, min_motion=0, min_points=1)


def picture(number: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8, unlike any other number's."""
    blocks = np.random.default_rng(number).integers(0, 255, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(blocks, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def info(stamp: int) -> Any:
    """fx = fy = 60, the principal point on pixel (32, 24)."""
    message = bags.camera_info(stamp, WIDTH, HEIGHT)
    message.k[:] = [60, 0, 32, 0, 60, 24, 0, 0, 1]
    return message


def recording(folder: Path, count: int = 4, plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Images at 1 Hz, each with a cloud, a scan and a depth image; sensors mounted by hand.

    The LiDAR sits 0.5 m above the camera and looks ahead with it. Its points: 2 m ahead and 0.5 m
    down (on the optical axis), and the same 0.4 m to the left. The laser's beams: 2 m ahead.
    """
    ahead = np.array([[2.0, 0.0, -0.5], [2.0, 0.4, -0.5], [-1.0, 0.0, 0.0]], np.float32)
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[10:20] = 1500
    messages = [
        ("/tf_static", START, bags.static_transform("base", "camera", (0, 0, 1), OPTICAL_IN_BODY)),
        ("/tf_static", START, bags.static_transform("base", "mast", (0, 0, 1.2))),
        ("/tf_static", START, bags.static_transform("mast", "lidar", (0, 0, 0.3))),
        ("/tf_static", START, bags.static_transform("base", "/laser", (0, 0, 1))),
    ]
    for i in range(count):
        stamp = START + i * SECOND
        messages += [
            ("/front/camera_info", stamp, info(stamp)),
            ("/front/image_raw", stamp, bags.image(stamp, picture(i), "rgb8")),
            ("/lidar/points", stamp, bags.cloud(stamp + 10_000_000, ahead)),
            ("/scan", stamp, bags.scan(stamp, [np.inf, 2.0, np.inf])),
            ("/front/depth", stamp, bags.image(stamp, depth, "16UC1")),
        ]
    return bags.write_bag(folder / "bag", messages, plugin)


def depths(path: Path, **options: Any) -> list[np.ndarray]:
    return [moment.depth for moment in BagCamera(BagCameraOptions(path, **options))]


def measured(depth: np.ndarray) -> dict[tuple[int, int], float]:
    """(u, v) -> metres."""
    return {
        (int(u), int(v)): round(float(depth[v, u]), 4) for v, u in np.argwhere(np.isfinite(depth))
    }


def test_transforms_go_up_and_down_the_tree(tmp_path: Path) -> None:
    transforms = StaticTransforms(recording(tmp_path))
    found = transforms.find("camera", "/lidar")
    assert found is not None
    # 0.5 m above the camera is -0.5 m in its y; ahead is its z; left is its -x.
    np.testing.assert_allclose(found @ [2, 0.4, -0.5, 1], [-0.4, 0, 2, 1], atol=1e-12)
    assert transforms.find("camera", "nowhere") is None
    assert transforms.frames == ("base", "camera", "laser", "lidar", "mast")


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_lidar_is_projected_through_its_transforms(tmp_path: Path, plugin: StoragePlugin) -> None:
    path = recording(tmp_path, 2, plugin)
    # On the axis: (32, 24). 0.4 m to the left at 2 m: 60 * 0.4 / 2 = 12 pixels to the left.
    expected = {(32, 24): 2.0, (20, 24): 2.0}
    for depth in depths(path, sensor="/lidar/points", kind="points"):
        assert measured(depth) == expected
    nearer = depths(path, sensor="/lidar/points", kind="points", max_depth_m=1.9)
    assert measured(nearer[0]) == {}
    # Extrinsics of the user hold before those of the bag: 1 m farther away, 60 * 0.4 / 3 = 8.
    body_to_optical = np.array([[0, -1, 0, 0], [0, 0, -1, -0.5], [1, 0, 0, 1], [0, 0, 0, 1.0]])
    (moved, _) = depths(
        path, sensor="/lidar/points", kind="points", T_camera_sensor=body_to_optical
    )
    assert measured(moved) == {(32, 24): 3.0, (24, 24): 3.0}


def test_a_scan_and_a_depth_image(tmp_path: Path) -> None:
    path = recording(tmp_path, 1)
    (scan,) = depths(path, sensor="/scan", kind="scan")
    assert measured(scan) == {(32, 24): 2.0}
    (depth,) = depths(path, sensor="/front/depth", kind="depth")
    assert np.isfinite(depth).sum() == 10 * WIDTH
    assert depth[10, 0] == pytest.approx(1.5)


def test_measurements_too_far_in_time_are_none(tmp_path: Path) -> None:
    path = recording(tmp_path, 2)
    options = BagCameraOptions(path, sensor="/lidar/points", kind="points", tolerance_s=0.009)
    assert [moment.measured for moment in BagCamera(options)] == [False, False]


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_sensor_whose_clock_is_off_measures_nothing(tmp_path: Path, off_s: float) -> None:
    messages = []
    for i in range(30):
        stamp = START + i * SECOND // 2
        sensor = bags.scan(stamp + round(off_s * SECOND), [2.0, 2.0, 2.0])
        messages += [
            ("/camera_info", stamp, info(stamp)),
            ("/image", stamp, bags.image(stamp, picture(i), "rgb8")),
            ("/scan", stamp, sensor),
        ]
    path = bags.write_bag(tmp_path / "bag", messages, StoragePlugin.MCAP)
    moments = list(BagCamera(BagCameraOptions(path)))
    assert len(moments) == 30
    assert not any(moment.measured for moment in moments)


def test_a_damaged_transform_of_other_frames_is_not_read(tmp_path: Path) -> None:
    broken = bags.static_transform("arm", "hand", (0, 0, 1), (0.0, 0.0, 0.0, 0.0))
    depth = np.full((HEIGHT, WIDTH), 900, np.uint16)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/tf_static", START, broken),
            ("/camera_info", START, info(START)),
            ("/image", START, bags.image(START, picture(0), "rgb8")),
            ("/depth", START, bags.image(START, depth, "16UC1")),
        ],
        StoragePlugin.MCAP,
    )
    assert depths(path)[0][0, 0] == pytest.approx(0.9)


def test_the_current_folder_is_read_and_is_no_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = recording(tmp_path), tmp_path / "out"
    command = ["bag", "extract", str(path), "--depth", "/front/depth", "--output"]
    assert main([*command, str(output)]) == 0
    monkeypatch.chdir(output)
    assert len(FrameSet(Path(), "all").names) == 4
    assert main([*command, "."]) == 1
    assert ". is the current folder: name a new one" in capsys.readouterr().err


def test_extract_writes_the_folder_that_training_reads(tmp_path: Path) -> None:
    path, output = recording(tmp_path, 5), tmp_path / "frames"
    arguments = ["bag", "extract", str(path), "--depth", "/front/depth", "--output", str(output)]
    assert main([*arguments, "--test-share", "0.2", "--gap", "1.5"]) == 0
    frames, strays = plain_folder.list_frames(output)
    assert strays == []
    names = [frame.name for frame in frames]
    assert names == [str((START + i * SECOND) // 1000) for i in range(5)]
    cameras = plain_folder.read_intrinsics(output)
    assert cameras[names[0]] == CameraIntrinsics(WIDTH, HEIGHT, 60.0, 60.0, 32.0, 24.0)
    # One of five tests; the one 1 s before it is within the gap and in neither part.
    assert plain_folder.read_split(output) == {
        **dict.fromkeys(names[:3], "train"),
        names[4]: "test",
    }
    for i, frame in enumerate(frames):
        assert frame.depth is not None
        assert np.abs(read_rgb(frame.rgb).astype(int) - picture(i)).mean() < 6
        depth = plain_folder.read_depth(frame.depth)
        assert (depth > 0).sum() == 10 * WIDTH
        assert depth[10, 0] == pytest.approx(1.5)
    sheet = cv2.imread(str(output / "contact_sheet.png"))
    assert sheet.shape[1] == 2 * (3 * 320 + 4)
    # The first tile: the picture at its left, and beside it grey, depth's colour, grey.
    small = cv2.resize(picture(0), (320, 240), interpolation=cv2.INTER_AREA)[..., ::-1]
    assert np.abs(sheet[20:260, :320].astype(int) - small).mean() < 12
    middle = sheet[20:260, 320:640]
    assert (middle[:49] == 96).all()
    assert not (middle[60:93] == 96).all(axis=-1).any()


def test_frames_are_chosen_by_time_and_motion_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = recording(tmp_path, 8)
    camera = BagCamera(BagCameraOptions(path, sensor="/front/depth", kind="depth"))
    slow = extract(camera, tmp_path / "slow", ExtractOptions(every_s=3, min_points=1), {})
    assert (slow.images, slow.taken) == (8, 3)
    assert slow.left_out == {"too soon after the last": 5}
    none = extract(camera, tmp_path / "all", ALL, {})
    assert none.taken == 8
    with pytest.raises(DataError, match="8 x fewer than 5000 measured pixels"):
        extract(camera, tmp_path / "thin", ExtractOptions(0, 0, 5000), {})
    assert not (tmp_path / "thin").exists()


class Still:
    """A recording without a bag: the camera stands, then turns; some moments are damaged."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[Any]:
        return iter([Still.Moment(self, i) for i in range(6)])

    class Moment:
        def __init__(self, owner: Still, number: int) -> None:
            self._owner, self._number = owner, number
            self.stamp, self.measured, self.jpeg = float(number), number != 1, None
            self.intrinsics = CameraIntrinsics(WIDTH, HEIGHT, 60.0, 60.0, 32.0, 24.0)

        @property
        def rgb(self) -> np.ndarray:
            if self._number == self._owner.stop_at:
                raise KeyboardInterrupt
            noise = np.random.default_rng(self._number).integers(-4, 5, (HEIGHT, WIDTH, 3))
            view = picture(0 if self._number < 4 else 1)
            return np.clip(view + noise, 0, 255).astype(np.uint8)

        @property
        def depth(self) -> np.ndarray:
            self._owner.decoded.append(self._number)
            if self._number == 5:
                raise MessageError("'/depth' is cut off")
            return np.full((HEIGHT, WIDTH), 2.0, np.float32)


def test_a_standing_camera_gives_one_frame_and_damage_is_counted(tmp_path: Path) -> None:
    source = Still()
    options = ExtractOptions(every_s=0, min_points=1)
    report = extract(source, tmp_path / "out", options, {})
    assert report.taken == 2
    assert report.left_out == {
        "no measurement within the tolerance": 1,
        "no motion since the last": 3,  # 5 shows what 4 shows
    }
    assert source.decoded == [0, 4]
    report = extract(source, tmp_path / "all", ALL, {})
    assert report.left_out["'/depth' is cut off"] == 1
    assert "1 left out: '/depth' is cut off" in report.lines()[0]


def test_an_interrupted_extraction_is_told_and_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        extract(Still(stop_at=4), output, ALL, {"path": "x"})
    assert not output.exists()
    with pytest.raises(DataError, match=r"only the beginning of it, out\.unfinished"):
        plain_folder.list_frames(output)
    with pytest.raises(DataError, match="was never finished"):
        plain_folder.list_frames(tmp_path / "out.unfinished")
    first = tmp_path / "out.unfinished" / "rgb" / "0000000000000000.jpg"
    written = first.stat().st_mtime_ns
    extract(Still(), output, ALL, {"path": "x"})
    assert (output / "rgb" / first.name).stat().st_mtime_ns == written, "not written again"
    assert len(plain_folder.list_frames(output)[0]) == 4
    assert not (tmp_path / "out.unfinished").exists()
    with pytest.raises(DataError, match="already exists"):
        extract(Still(), output, ALL, {"path": "x"})


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="already exists"):
        extract(Still(), tmp_path / "file", ALL, {})
    with pytest.raises(DataError, match=r"file/out cannot be written \(Not a directory\)"):
        extract(Still(), tmp_path / "file" / "out", ALL, {})


def test_another_recording_does_not_go_on_from_the_remains(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(Still(stop_at=4), tmp_path / "out", ALL, {"path": "x"})
    (tmp_path / "out.unfinished" / "rgb" / "stray.jpg").write_bytes(b"")
    (tmp_path / "out.unfinished" / "extraction.json").write_text("{ cut")
    extract(Still(), tmp_path / "out", ALL, {"path": "y"})
    assert not (tmp_path / "out" / "rgb" / "stray.jpg").exists()
    result = json.loads((tmp_path / "out" / "extraction.json").read_text())
    assert result["source"] == {"path": "y"}
    assert result["result"]["taken"] == 4


def test_the_cameras_own_jpeg_is_kept(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", picture(3), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    message = bags.compressed(START, jpeg.tobytes(), "rgb8; jpeg compressed bgr8")
    depth = np.full((HEIGHT, WIDTH), 900, np.uint16)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/cam/image/compressed", START, message),
            ("/cam/depth", START, bags.image(START, depth, "16UC1")),
        ],
        StoragePlugin.SQLITE3,
    )
    output = tmp_path / "out"
    options = ["--intrinsics", "60", "60", "32", "24", "--output", str(output)]
    assert main(["bag", "extract", str(path), *options]) == 0
    (file,) = (output / "rgb").iterdir()
    assert file.read_bytes() == jpeg.tobytes()


GREY = cv2.cvtColor(picture(3), cv2.COLOR_RGB2GRAY)
BGR = picture(3)[..., ::-1]


@pytest.mark.parametrize(
    ("data", "text", "kept"),
    [
        (pictures.jpeg(BGR), "jpeg", True),
        (pictures.jpeg(BGR), "rgb8; jpeg compressed bgr8", True),
        (pictures.jpeg(GREY), "mono8; jpeg compressed ", True),
        (pictures.jpeg(BGR) + bytes(500), "jpeg", True),
        *(
            (pictures.with_orientation(pictures.jpeg(BGR), turn), "jpeg", True)
            for turn in (2, 3, 6)
        ),
        (pictures.jpeg(GREY), "bayer_rggb8; jpeg compressed ", False),
        (pictures.jpeg(picture(3)), "rgb8; jpeg compressed rgb8", False),
        (pictures.png(BGR), "png", False),
    ],
)
def test_extracted_pictures_are_what_the_node_sees(
    tmp_path: Path, data: bytes, text: str, kept: bool
) -> None:
    """Bayer mosaic, channels in the order RGB, EXIF orientation: as the node reads them."""
    message = bags.compressed(START, data, text)
    depth = np.full((HEIGHT, WIDTH), 900, np.uint16)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/cam/image/compressed", START, message),
            ("/cam/camera_info", START, info(START)),
            ("/cam/depth", START, bags.image(START, depth, "16UC1")),
        ],
        StoragePlugin.MCAP,
    )
    options = BagCameraOptions(path, intrinsics=(60, 60, 32, 24))
    extract(BagCamera(options), tmp_path / "out", ALL, {})
    (file,) = (tmp_path / "out" / "rgb").iterdir()
    node_sees = rgb_from_compressed(message, "image")
    difference = np.abs(read_rgb(file).astype(int) - node_sees).mean()
    assert difference == 0 if kept else difference < 6  # written again as JPEG
    assert (file.read_bytes() == data) is kept
    frames = FrameSet(tmp_path / "out")
    assert len(frames) == 1, "and the evaluation leaves nothing out"


def test_no_return_at_the_sensors_origin_is_not_depth(tmp_path: Path) -> None:
    """A LiDAR 0.35 m before the lens; its driver writes (0, 0, 0) for beams without an answer."""
    points = np.array([[2.65, 0.0, 0.0], [0.0, 0.0, 0.0], [0.05, 0.0, 0.0]], np.float32)
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/tf_static", START, bags.static_transform("b", "camera", (0, 0, 0), OPTICAL_IN_BODY)),
            ("/tf_static", START, bags.static_transform("b", "lidar", (0.35, 0, 0))),
            ("/cam/camera_info", START, info(START)),
            ("/cam/image", START, bags.image(START, picture(0), "rgb8")),
            ("/points", START, bags.cloud(START, points)),
        ],
        StoragePlugin.MCAP,
    )
    (depth,) = depths(path)
    assert measured(depth) == {(32, 24): 3.0}
    (near,) = depths(path, min_range_m=0.0)
    assert measured(near) == {(32, 24): 0.35}


def test_splitting_by_time_by_hand() -> None:
    stamps = {"c": 3.0, "a": 1.0, "b": 2.0, "d": 4.0}
    assert split_by_time(stamps, 0.25, 0.0) == {
        "a": "train",
        "b": "train",
        "c": "train",
        "d": "test",
    }
    assert split_by_time(stamps, 0.25, 1.5) == {"a": "train", "b": "train", "d": "test"}
    assert set(split_by_time(stamps, 0.0, 9.0).values()) == {"train"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--image", "/front"], "no image topic '/front' in it; it has /front/depth, /front/image"),
        (["--points", "/scan"], "'/scan' is sensor_msgs/msg/LaserScan; topics that can be points"),
        (["--scan", "/laser"], "no topic '/laser' in it; topics that can be scan are /scan; all:"),
        (["--camera-info", "/scan"], "that can be calibration are /front/camera_info"),
        ([], "which of /front/depth (depth), /lidar/points (points), /scan (scan) is the depth"),
        (
            ["--extrinsics", "0", "0", "0", "0", "0", "0", "0"],
            "--extrinsics: translation",
        ),
        (["--intrinsics", "0", "1", "2", "3"], "fx and fy must be positive"),
        (["--intrinsics", "nan", "1", "2", "3"], "fx and fy must be positive"),
        (["--intrinsics", "1", "1", "inf", "3"], "principal point must be finite"),
        (["--min-depth", "9", "--max-depth", "2"], "--min-depth must be below --max-depth"),
        (["--tolerance", "nan"], "--tolerance must be 0 to 0.5 s"),
        (["--tolerance", "0.6"], "--tolerance must be 0 to 0.5 s"),
        (["--scan", "/scan", "--every", "-1"], "every_s must be in"),
        (["--scan", "/scan", "--tolerance", "0"], "2 x fewer than 100 measured pixels"),
    ],
)
def test_faults_are_one_line_that_lists_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    path = recording(tmp_path, 2)
    assert main(["bag", "extract", str(path), "--output", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert says in error
    assert error.startswith("d3_ros bag: ")


def test_sensors_that_nothing_connects_and_depth_from_elsewhere(tmp_path: Path) -> None:
    image = bags.image(START, picture(0), "rgb8")
    points = bags.cloud(START, np.ones((5, 3)), "drone")
    depth = bags.image(START, np.full((HEIGHT, WIDTH), 900, np.uint16), "16UC1", "ir")
    path = bags.write_bag(
        tmp_path / "bag",
        [
            ("/tf_static", START, bags.static_transform("camera", "ir", (0.05, 0, 0))),
            ("/cam/image", START, image),
            ("/cam/camera_info", START, info(START)),
            ("/points", START, points),
            ("/cam/depth", START, depth),
        ],
        StoragePlugin.SQLITE3,
    )
    with pytest.raises(DataError, match=r"does not connect .* 'drone' .* \(frames: camera, ir\)"):
        depths(path, sensor="/points", kind="points")
    with pytest.raises(DataError, match="/cam/depth is not registered to /cam/image: frame 'ir'"):
        depths(path, sensor="/cam/depth", kind="depth")


def test_a_bag_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", str(recording(tmp_path, 3))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "6 topics" in lines[0]
    (cloud,) = (line for line in lines if "/lidar/points" in line)
    assert cloud.split()[1] == "3"
    assert cloud.endswith("--points")
    assert main(["bag", "info", str(tmp_path / "none")]) == 1


def test_no_ros_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('rclpy', 'sensor_msgs', 'std_msgs', 'tf2_ros', 'cv_bridge'):\n"
        "    sys.modules[name] = None\n"
        "from d3_ros.__main__ import main\n"
        f"sys.exit(main(['bag', 'extract', {str(ROOT / 'test' / 'data' / 'sample_walk')!r},\n"
        f"    '--output', {str(tmp_path / 'out')!r}, '--every', '1']))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert len(plain_folder.list_frames(tmp_path / "out")[0]) == 3

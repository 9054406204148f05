"""The predict command: what it writes is what its help says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros.__main__ import main
from d3_ros.commands.predict import looks_like_depth
from d3_ros.network import D3Predictor

HEIGHT, WIDTH = 30, 40


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    image = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image)
    return path


def predict(images: list[Path], bundle: Path, output: Path, *more: str) -> int:
    arguments = ["predict", *map(str, images), "--model", str(bundle), "--output", str(output)]
    return main([*arguments, "--device", "cpu", *more])


def read_ply(path: Path) -> tuple[str, np.ndarray]:
    """Header and vertices of a binary PLY file, read by its own header."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    text = header.decode()
    kinds = {"float": "<f4", "uchar": "u1"}
    lines = [line.split() for line in text.splitlines() if line.startswith("property")]
    vertices = np.frombuffer(body, dtype=[(name, kinds[kind]) for _, kind, name in lines])
    assert f"element vertex {len(vertices)}\n" in text
    return text, vertices


def test_everything_is_written(
    photo: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "deeper"
    intrinsics = ["--intrinsics", "20", "25", "19", "14"]
    assert predict([photo], tiny_bundle, output, *intrinsics, "--depth-range", "1", "3") == 0
    assert "1 of 1 images predicted" in capsys.readouterr().out
    names = {"photo_depth.png", "photo_depth_color.png", "photo_normals.png", "photo.ply"}
    assert {path.name for path in output.iterdir()} == names

    rgb = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    prediction = D3Predictor.from_pretrained(tiny_bundle, "cpu")(rgb)
    depth, normals = prediction.depth, prediction.normals
    assert depth is not None
    assert normals is not None

    stored = cv2.imread(str(output / "photo_depth.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored / 65535, depth, rtol=0, atol=0.51 / 65535)

    colours = cv2.cvtColor(cv2.imread(str(output / "photo_normals.png")), cv2.COLOR_BGR2RGB)
    expected = 127.5 + 127.5 * normals * [1, -1, -1]  # red right, green up, blue to the viewer
    np.testing.assert_allclose(colours, expected, rtol=0, atol=1.01)
    assert cv2.imread(str(output / "photo_depth_color.png")).shape == (HEIGHT, WIDTH, 3)

    header, vertices = read_ply(output / "photo.ply")
    assert "format binary_little_endian 1.0" in header
    inside = (depth > 0) & (depth < 1)
    assert len(vertices) == inside.sum() > 0
    v, u = np.nonzero(inside)
    np.testing.assert_allclose(vertices["z"], 1 + 2 * depth[inside], rtol=1e-5)
    np.testing.assert_allclose(vertices["x"] * 20 / vertices["z"] + 19, u, atol=1e-3)
    np.testing.assert_allclose(vertices["y"] * 25 / vertices["z"] + 14, v, atol=1e-3)
    np.testing.assert_array_equal(vertices["red"], rgb[inside][:, 0])
    np.testing.assert_array_equal(vertices["blue"], rgb[inside][:, 2])
    np.testing.assert_allclose(vertices["nz"], normals[inside][:, 2], atol=1e-6)


def test_assumed_camera_spans_sixty_degrees(photo: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert predict([photo], tiny_bundle, tmp_path / "out") == 0
    _, vertices = read_ply(tmp_path / "out" / "photo.ply")
    angles = np.degrees(np.arctan2(vertices["x"], vertices["z"]))
    # Pixel centres: half a pixel short of 30 degrees on either side.
    edge = np.degrees(np.arctan((WIDTH - 1) / WIDTH * np.tan(np.radians(30))))
    assert angles.max() == pytest.approx(edge, abs=0.01)
    assert angles.min() == pytest.approx(-edge, abs=0.01)
    assert vertices["z"].min() >= 0.5
    assert vertices["z"].max() <= 5.0


def test_a_folder_and_an_unreadable_image(
    photo: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are predicted, each bad one has its line, and the exit code says so."""
    grey = cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)
    folder = tmp_path / "folder"
    folder.mkdir()
    cv2.imwrite(str(folder / "grey.jpg"), grey)
    (folder / "notes.txt").write_text("not taken for an image")
    (folder / "map.pgm").write_bytes(b"P5 1 1 255 x")
    (folder / "._grey.jpg").write_bytes(b"of another file system")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "empty.png").write_bytes(b"")
    missing = tmp_path / "missing.png"
    output = tmp_path / "out"
    assert predict([missing, folder, photo], tiny_bundle, output) == 1
    captured = capsys.readouterr()
    assert "2 of 5 images predicted" in captured.out
    told = [x for x in captured.err.splitlines() if x.startswith("d3_ros predict: ")]
    assert told == [
        f"d3_ros predict: {missing} cannot be read (No such file or directory)",
        f"d3_ros predict: {folder}/broken.png is damaged or cut short",
        f"d3_ros predict: {folder}/empty.png is no picture (JPEG, PNG, BMP, TIFF or WebP)",
    ]
    assert {path.stem for path in output.glob("*.ply")} == {"grey", "photo"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--depth-range", "3", "1"], "0 < NEAR < FAR"),
        (["--intrinsics", "0", "1", "1", "1"], "fx and fy must be positive, in pixels"),
        (["--intrinsics", "1", "1", "nan", "1"], "principal point must be finite"),
        (["--processing-size", "33x33"], "multiples of 8"),
        (["--processing-size", "aspect:1000000000"], "at most 4096 pixels a side"),
        (["--processing-size", "100000000x100000000"], "at most 4096 pixels a side"),
        (["--processing-size", "1" * 5000 + "x8"], "is too long for a size"),
        (["--runtime", "onnx"], "has no ONNX graphs for codec vae in fp32"),
        (["--dtype", "int8"], "no ONNX graphs for codec vae in int8"),
        (["--device", "tpu"], "'tpu' is not one of auto, cpu, cuda"),
        (["--model", "no_such_model"], "unknown model 'no_such_model'"),
    ],
)
def test_faults_are_one_line(
    photo: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    assert predict([photo], tiny_bundle, tmp_path / "out", *more) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("d3_ros predict:")]
    assert len(lines) == 1
    assert message in lines[0]


def test_images_that_would_overwrite_each_other(
    photo: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict([photo, tmp_path / "x" / "photo.jpg"], tiny_bundle, tmp_path / "out") == 1
    assert "would write the same files" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert predict([empty], tiny_bundle, tmp_path / "out") == 1
    assert f"no image files in {empty}" in capsys.readouterr().err
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert predict([photo], tiny_bundle, taken) == 1
    assert f"--output {taken}: File exists" in capsys.readouterr().err


def test_measured_depth_beside_a_picture_is_not_overwritten(
    photo: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = photo.with_name("photo_depth.png")
    measured.write_bytes(photo.read_bytes())
    assert predict([photo.parent], tiny_bundle, photo.parent) == 1
    assert "photo_depth.png is one of the images" in capsys.readouterr().err
    assert measured.read_bytes() == photo.read_bytes()
    assert sorted(path.name for path in photo.parent.glob("photo*")) == [
        "photo.png",
        "photo_depth.png",
    ]


def test_a_full_disk_is_one_line_and_leaves_no_cut_file(
    photo: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if ".ply" not in path.name:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    output = tmp_path / "out"
    assert predict([photo], tiny_bundle, output) == 1
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("d3_ros predict:")]
    assert lines == [
        f"d3_ros predict: {output}/photo.ply cannot be written (No space left on device)"
    ]
    assert {path.suffix for path in output.iterdir()} == {".png"}


def test_a_picture_that_looks_like_depth_is_noted(tmp_path: Path) -> None:
    for name, picture in (
        ("depth.png", np.zeros((4, 6), np.uint16)),
        ("grey.png", np.zeros((4, 6), np.uint8)),
        ("colour.png", np.zeros((4, 6, 3), np.uint16)),
        ("photo.jpg", np.zeros((4, 6, 3), np.uint8)),
    ):
        cv2.imwrite(str(tmp_path / name), picture)
        assert looks_like_depth(tmp_path / name) == (name == "depth.png")

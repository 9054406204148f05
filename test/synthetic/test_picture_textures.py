"""The user's own pictures as textures: where they are found and what they cover."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from d3_ros import __main__ as program
from d3_ros.errors import D3Error
from d3_ros.synthetic import dataset as render_dataset
from d3_ros.synthetic.mesh.picture_textures import MATERIALS, PRINTED, find_pictures, roles_of
from d3_ros.synthetic.mesh.random_textures import ROLES, SIZE
from d3_ros.synthetic.mesh.rig import Rig

MAGENTA = (255, 0, 255)  # BGR; no texture that is drawn here has it


def write(file: Path, colour: tuple[int, int, int], side: int = 96) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.full((side, side + 32, 3), colour, np.uint8))


def test_a_files_name_tells_what_it_covers() -> None:
    assert "floor" in roles_of("Dark-Wood_02")
    assert roles_of("white-bricks") == ("wall", "facade")
    assert "outside" in roles_of("city_3")
    assert roles_of("IMG_0412") == PRINTED
    assert {role for _, roles in MATERIALS for role in roles} | set(PRINTED) <= set(ROLES)


def test_pictures_are_found_in_folders_and_in_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mine/deep/brick_1.png", MAGENTA)
    write(tmp_path / "mine/icon.png", MAGENTA, side=16)  # too small
    (tmp_path / "mine/wood.jpg").write_text("no picture")
    write(tmp_path / "some_assets/textures/oak_wood.jpg", MAGENTA)
    (tmp_path / "some_assets/__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_pictures([str(tmp_path / "mine"), "some_assets"]).by_role
    assert [file.name for file in found["wall"]] == ["brick_1.png"]
    assert [file.name for file in found["floor"]] == ["oak_wood.jpg"]
    assert "poster" not in found
    with pytest.raises(D3Error, match="no_such_thing: neither a folder nor an installed"):
        find_pictures(["no_such_thing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(D3Error, match="empty: no picture"):
        find_pictures([str(tmp_path / "empty")])


def test_half_of_what_fits_shows_the_picture_and_repeats_without_seams(tmp_path: Path) -> None:
    ramp = np.linspace(60, 250, 128).astype(np.uint8)
    picture = np.repeat(np.repeat(ramp[None, :, None], 128, 0), 3, 2)
    assert cv2.imwrite(str(tmp_path / "plaster.png"), picture)
    pictures = find_pictures([str(tmp_path)])
    rng = np.random.default_rng(0)
    drawn = [pictures.draw("wall", rng) for _ in range(60)]
    assert 18 <= sum(one is not None for one in drawn) <= 42
    assert all(pictures.draw("floor", rng) is None for _ in range(10))
    for image, metres in (one for one in drawn if one is not None):
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.float32
        assert 0.3 <= metres <= 3.0
        step = max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1))
        assert np.abs(image[0] - image[-1]).max() <= step
        assert np.abs(image[:, 0] - image[:, -1]).max() <= step
        assert np.ptp(image) > 0.05  # the ramp is there


def test_rendered_frames_show_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("wood", "plaster", "carpet", "tile"):
        write(tmp_path / f"assets/{name}.png", MAGENTA)

    def magenta(rgb: np.ndarray) -> float:
        red, green, blue = (rgb[..., i].astype(int) for i in range(3))
        return float(np.mean((red > green + 40) & (blue > green + 40)))

    small, kinds = Rig((48, 36)), ("room",)
    pictures = find_pictures([str(tmp_path / "assets")])
    (plain,) = render_dataset.render_scene(3, 1, 1, small, kinds)
    shares = [
        magenta(one.rgb)
        for scene in range(4)
        for one in render_dataset.render_scene(3, scene, 1, small, kinds, pictures)
    ]
    assert magenta(plain.rgb) < 0.05
    assert max(shares) > 0.2

    output = str(tmp_path / "frames")
    command = ["render", "--output", output, "--frames", "2", "--size", "48x36", "--jobs", "1"]
    assert program.main([*command, "--assets", str(tmp_path / "assets")]) == 0
    assert len(list((tmp_path / "frames/rgb").iterdir())) == 2
    assert program.main([*command[:2], output + "2", "--assets", "no_such_thing"]) == 1
    assert "neither a folder nor an installed Python package" in capsys.readouterr().err

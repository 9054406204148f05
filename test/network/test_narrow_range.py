"""scripts/narrow_range.py: the same depth in less of its range."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers.paths import ROOT
from helpers.skip_network import plain_network, skip_network

from d3_ros.network import load_bundle, write_bundle
from d3_ros.types import TASKS

IMAGE = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def narrow(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    main = runpy.run_path(str(ROOT / "scripts" / "narrow_range.py"))["main"]
    monkeypatch.setattr(sys, "argv", ["narrow_range.py", *map(str, arguments)])
    main()


def test_depth_shrinks_around_the_middle_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = write_bundle(tmp_path / "start", skip_network(), name="n", license="MIT", source="test")
    narrow(monkeypatch, start, "--share", 0.5, "--output", tmp_path / "narrow")
    before, after = load_bundle(start).network, load_bundle(tmp_path / "narrow").network
    with torch.inference_mode():
        wide, slim = before(IMAGE), after(IMAGE)
        latents = before.predict_latents(before.encode(IMAGE), TASKS)
        mixtures = [n.vae.depth_mixture(latents["depth"]) for n in (before, after)]
    assert float(wide["depth"].std()) > 0.05
    torch.testing.assert_close(slim["depth"], wide["depth"] / 2, rtol=1e-2, atol=5e-3)
    torch.testing.assert_close(slim["normals"], wide["normals"], rtol=1e-4, atol=1e-4)
    depths, weights, spreads = ([m.chunk(3, dim=1)[i] for m in mixtures] for i in range(3))
    torch.testing.assert_close(depths[1], depths[0] / 2, rtol=1e-2, atol=5e-3)
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spreads[1].exp(), spreads[0].exp() / 2, rtol=1e-2, atol=5e-3)
    manifest = json.loads((tmp_path / "narrow" / "bundle.json").read_text())
    assert manifest["source"] == "test; depth takes 0.5 of its range"


@pytest.mark.parametrize("share", [0, 1.5])
def test_shares_that_make_no_sense(
    share: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        narrow(monkeypatch, "bundle", "--share", share, "--output", "narrow")
    assert "--share must be above 0 and at most 1" in capsys.readouterr().err


def test_decoders_that_see_the_latent_alone_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = write_bundle(
        tmp_path / "start", plain_network(), name="n", license="MIT", source="test"
    )
    with pytest.raises(SystemExit, match="its depth decoder does not see the picture"):
        narrow(monkeypatch, start, "--output", tmp_path / "narrow")
    assert not (tmp_path / "narrow").exists()

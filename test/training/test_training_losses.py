"""The losses: expectations by hand, slopes in float64, unlabelled pixels, one value an image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from d3_ros import metrics
from d3_ros.network import OFFICIAL_NORMAL_AXES
from d3_ros.training.config.train_config import LossConfig
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives import losses
from d3_ros.training.objectives.task_losses import (
    alignment_loss,
    task_losses,
    weighted_sum,
)

ALL = torch.ones(1, 2, 3, dtype=torch.bool)


def test_mse_looks_only_at_valid_pixels() -> None:
    decoded = torch.zeros(1, 3, 2, 3)
    target = torch.zeros(1, 1, 2, 3)
    target[0, 0, 0, 0], target[0, 0, 1, 2] = 2.0, 100.0
    valid = ALL.clone()
    valid[0, 1, 2] = False
    assert losses.masked_mse(decoded, target, valid).item() == pytest.approx(4 / 5)
    assert losses.masked_mse(decoded, target, ~ALL).item() == 0.0


def test_scale_and_shift_are_forgiven() -> None:
    metric = torch.tensor([[[1.0, 2.0, 4.0], [3.0, 7.0, 5.0]]])
    relative = (metric - 1) / 8
    assert losses.scale_shift_invariant_l1(relative, metric, ALL).item() < 1e-3
    # A constant prediction is left with the mean absolute deviation: mean 22/6.
    constant = torch.full_like(metric, 0.3)
    expected = np.abs(metric.numpy() - 22 / 6).mean()
    loss = losses.scale_shift_invariant_l1(constant, metric, ALL)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_scale_and_shift_are_numpys_least_squares() -> None:
    rng = np.random.default_rng(0)
    prediction, metric = rng.random((5, 6)), rng.uniform(1, 9, (5, 6))
    valid = rng.random((5, 6)) > 0.3
    scale, shift = np.polyfit(prediction[valid], metric[valid], 1)
    expected = np.abs(scale * prediction + shift - metric)[valid].mean()
    loss = losses.scale_shift_invariant_l1(
        *(torch.from_numpy(a)[None] for a in (prediction, metric, valid))
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_local_loss_forgives_a_shift_of_each_tile_but_no_scale() -> None:
    rng = np.random.default_rng(0)
    metric = torch.from_numpy(rng.uniform(1, 9, (1, 8, 8)))
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    assert losses.local_shift_invariant_l1(metric / 3 - 1, metric, valid, 1.0, 2).item() < 1e-6
    # Tiles whose means are alike, so that their shifts change nothing in the slope of the whole.
    tile = torch.from_numpy(rng.permuted(np.linspace(-1, 1, 16)).reshape(4, 4))
    even = (torch.ones(2, 2)[:, :, None, None] * tile).permute(0, 2, 1, 3).reshape(1, 8, 8)
    shifted = even + torch.tensor([0.0, 3.0]).repeat_interleave(4)[None, None]
    slope = (even.square().mean() / (even.square().mean() + 1.5**2)).item()
    loss = losses.local_shift_invariant_l1(shifted, even, valid, 1.0, 2).item()
    assert loss == pytest.approx((1 - slope) * even.abs().mean().item(), rel=1e-5)


def test_mixture_by_hand() -> None:
    """One pixel: weights 3/4 and 1/4, spreads 0.1 and 0.2, distances 0.1 and 0.4."""
    logs = [math.log(3), 0.0, math.log(0.1), math.log(0.2)]
    mixture = torch.tensor([0.0, 0.5, *logs]).view(1, 6, 1, 1).expand(1, 6, 1, 2)
    answer, target = torch.zeros(1, 1, 2), torch.full((1, 1, 2), 0.1)
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    # The answer's own fit moves it by 0.1; the second depth, by the least slope, to 0.35.
    expected = -math.log(0.75 / 0.2 + 0.25 / 0.4 * math.exp(-0.25 / 0.2))
    loss = losses.laplace_mixture(mixture, answer, target, valid)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_log_gradient_by_hand() -> None:
    prediction, target = torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)
    target[0, 0, 2] = 1.0
    valid = torch.ones(1, 3, 4, dtype=torch.bool)
    # Two pixels apart in a 3 x 4 image: 6 pairs across, 4 down; one of each is off by log 2.
    expected = 2 * math.log(2) / 10
    assert losses.log_gradient(prediction, target, valid).item() == pytest.approx(expected)
    valid[0, 0, 2] = False
    assert losses.log_gradient(prediction, target, valid).item() == 0.0


def test_normal_angle_by_hand() -> None:
    truth = torch.tensor([0.0, 0.0, -1.0])[None, :, None, None].expand(1, 3, 2, 3)
    tilted = torch.tensor([0.0, 3.0, -3.0])[None, :, None, None].expand(1, 3, 2, 3)
    assert losses.normal_angle(tilted, truth, ALL).item() == pytest.approx(math.pi / 4, rel=1e-5)
    floor = math.acos(losses.MAX_COSINE)
    assert losses.normal_angle(truth, truth, ALL).item() == pytest.approx(floor, rel=1e-2)


def test_feature_distance_by_hand() -> None:
    teacher = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 1, 2)
    student = torch.tensor([[3.0, 0.0], [0.0, 5.0]])[None, :, None, :]  # same way, then across
    assert losses.feature_distance(student, teacher).item() == pytest.approx(0.5)
    both = {"mid": student, "us1": student}
    assert alignment_loss(both, {"mid": teacher, "us1": -teacher}).item() == pytest.approx(2.0)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


VALID = _random(2, 5, 6, seed=9) > 0.2
UNIT = torch.nn.functional.normalize(_random(2, 3, 5, 6, seed=1) - 0.5, dim=1)
# Each loss as a function of the prediction alone, and a prediction where it is smooth.
SLOPES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]] = {
    "masked_mse": (
        lambda p: losses.masked_mse(p, _random(2, 1, 5, 6, seed=1), VALID),
        _random(2, 3, 5, 6),
    ),
    "scale_shift_invariant_l1": (
        lambda p: losses.scale_shift_invariant_l1(p, _random(2, 5, 6, seed=1), VALID),
        _random(2, 5, 6),
    ),
    "log_gradient": (
        lambda p: losses.log_gradient(p, _random(2, 5, 6, seed=1), VALID),
        _random(2, 5, 6),
    ),
    "local_shift_invariant_l1": (
        lambda p: losses.local_shift_invariant_l1(p, _random(2, 5, 6, seed=1), VALID, 1.0, 2),
        _random(2, 5, 6),
    ),
    "laplace_mixture": (
        lambda p: losses.laplace_mixture(p, _random(2, 5, 6), _random(2, 5, 6, seed=1), VALID),
        _random(2, 6, 5, 6, seed=3) - 0.6,
    ),
    "normal_angle": (
        lambda p: losses.normal_angle(p, UNIT, VALID),
        _random(2, 3, 5, 6, seed=2) - 0.5,
    ),
    "feature_distance": (
        lambda p: losses.feature_distance(p, _random(2, 4, 3, 3, seed=1)),
        _random(2, 4, 3, 3),
    ),
}


def test_every_loss_has_its_slope_checked() -> None:
    public = {
        name
        for name, value in vars(losses).items()
        if callable(value) and getattr(value, "__module__", "") == losses.__name__
    }
    assert public - {"masked_mean"} == set(SLOPES)


@pytest.mark.parametrize("name", SLOPES)
def test_slope(name: str) -> None:
    loss, prediction = SLOPES[name]
    assert torch.autograd.gradcheck(loss, prediction.clone().requires_grad_())


@pytest.mark.parametrize("name", sorted(SLOPES.keys() - {"feature_distance"}))
def test_unlabelled_pixels_have_no_influence(name: str) -> None:
    """Neither on the value nor on the slope."""
    loss, prediction = SLOPES[name]
    mask = VALID if prediction.ndim == 3 else VALID[:, None].expand_as(prediction)
    other = torch.where(mask, prediction, torch.full_like(prediction, 7.0)).requires_grad_()
    value = loss(other)
    torch.testing.assert_close(value, loss(prediction))
    (slope,) = torch.autograd.grad(value.sum(), other)
    assert not slope[~mask].any()
    assert slope[mask].any()


def _batch(size: tuple[int, int], count: int = 2, empty: bool = False) -> Batch:
    metric = 1 + 8 * _random(count, *size).float() * (not empty) - 1 * empty
    normals = torch.nn.functional.normalize(_random(count, 3, *size).float() - 0.5, dim=1)
    if empty:
        normals = torch.zeros_like(normals)
    return Batch(
        image=torch.zeros(count, 3, 8, 8),
        depth=metric,
        depth_target=(metric - 5) / 4,
        normals=normals,
        normals_target=normals,
        captions=(None,) * count,
        image_keys=(None,) * count,
    )


def test_labels_of_another_size_are_met_at_theirs() -> None:
    """A decoded plane is a plane at any size: bilinear, pixel centres kept."""
    x = (torch.arange(8) + 0.5) / 8
    decoded = (x * 2 - 1).expand(1, 3, 8, 8)
    fine = ((torch.arange(16) + 0.5) / 16).clamp(1 / 16, 15 / 16).expand(1, 16, 16)
    batch = _batch((16, 16), 1)
    batch = Batch(**{**vars(batch), "depth": 2 + 3 * fine, "depth_target": fine * 2 - 1})
    for value in task_losses("depth", decoded, batch, None, "metre").values():
        assert value.item() == pytest.approx(0, abs=1e-4)


def test_mean_unit_weighs_a_street_like_a_table() -> None:
    table, street = _batch((8, 8)), _batch((8, 8))
    street = Batch(**{**vars(street), "depth": table.depth * 20})  # type: ignore[operator]
    decoded = _random(2, 3, 8, 8).float()
    near, far = (
        task_losses("depth", decoded, batch, None, "mean")["scale_shift_invariant"]
        for batch in (table, street)
    )
    torch.testing.assert_close(near, far)


def test_pixel_unit_is_abs_rel_after_the_fit() -> None:
    batch = _batch((8, 8))
    assert batch.depth is not None
    decoded = _random(2, 3, 8, 8).float()
    loss = task_losses("depth", decoded, batch, None, "pixel")["scale_shift_invariant"]
    for image in range(2):
        relative = (decoded[image] / 2 + 0.5).clamp(0, 1).mean(dim=0).numpy()
        metric = batch.depth[image].numpy()
        valid = metric > 0
        scale, shift = metrics.affine_align(relative, metric, valid)
        expected = metrics.abs_rel(scale * relative + shift, metric, valid)
        assert loss[image].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_an_image_counts_the_same_whatever_is_beside_it(task: str) -> None:
    batch, decoded = _batch((8, 8)), _random(2, 3, 8, 8).float()
    both = task_losses(task, decoded, batch, OFFICIAL_NORMAL_AXES, "metre")  # type: ignore[arg-type]
    for i in range(2):
        one = Batch(**{k: v[i : i + 1] for k, v in vars(batch).items()})
        alone = task_losses(task, decoded[i : i + 1], one, OFFICIAL_NORMAL_AXES, "metre")  # type: ignore[arg-type]
        for name, value in alone.items():
            torch.testing.assert_close(value[0], both[name][i])


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_no_labels_no_loss(task: str) -> None:
    decoded = _random(2, 3, 8, 8).float().requires_grad_()
    losses_of_nothing = task_losses(
        task,  # type: ignore[arg-type]
        decoded,
        _batch((8, 8), empty=True),
        OFFICIAL_NORMAL_AXES,
        "mean",
    )
    total = torch.stack(list(losses_of_nothing.values())).sum()
    assert total.item() == 0.0
    (slope,) = torch.autograd.grad(total, decoded)
    assert not slope.any()


def test_weights_are_applied_by_name() -> None:
    config = LossConfig(1.0, 8.0, 2.0, 100.0, 3.0, "metre")
    raw = {"depth.mse": torch.tensor(0.5), "normals.normal_angle": torch.tensor(2.0)}
    assert weighted_sum(raw, config).item() == pytest.approx(8 * 0.5 + 3 * 2)

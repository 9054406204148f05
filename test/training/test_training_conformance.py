"""One training step with the official networks' shapes gives the official code's losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from helpers.conformance import VECTORS
from helpers.full_size_network import Weights, full_size_parts

from d3_ros.network import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec
from d3_ros.training.config.model_config import AdapterConfig
from d3_ros.training.distillation.adapters import Adapter, FeatureAdapters
from d3_ros.training.distillation.features import feature_channels, tapped
from d3_ros.training.distillation.teacher import (
    LEVELS,
    NoiseDraw,
    draw_noise,
    noised,
    teacher_features,
)
from d3_ros.training.loading.sample import Batch
from d3_ros.training.objectives.losses import feature_distance
from d3_ros.training.objectives.task_losses import alignment_loss, task_losses
from d3_ros.types import Task

TOLERANCE = 1e-4
FILES: dict[Task, str] = {"depth": "training_depth.npz", "normals": "training_normal.npz"}
# Our names of the official code's losses.
LOSSES: dict[Task, dict[str, str]] = {
    "depth": {
        "mse": "mse_sample",
        "scale_shift_invariant": "ssi_sample",
        "log_gradient": "gradient",
    },
    "normals": {"mse": "mse_sample", "normal_angle": "angular_sample"},
}


@pytest.fixture(scope="module")
def vectors() -> dict[Task, dict[str, Any]]:
    return {task: dict(np.load(VECTORS / name)) for task, name in FILES.items()}


@pytest.fixture(scope="module")
def network(sd21_weights: Weights, vectors: dict[Task, dict[str, Any]]) -> D3Network:
    """Student and teacher of the vectors have the same weights."""
    vae, unet = full_size_parts(sd21_weights)
    specs = {
        task: TaskSpec(
            unet="unet",
            prompt=PROMPTS[task],
            processing_size=(128, 128),
            timestep=float(vector["timestep"]),
            axes=OFFICIAL_NORMAL_AXES if task == "normals" else None,
        )
        for task, vector in vectors.items()
    }
    prompts = {
        task: torch.from_numpy(vector["prompt_embedding"]).float()
        for task, vector in vectors.items()
    }
    return D3Network(vae, {"unet": unet}, specs, prompts).eval()


def labels(task: Task, vector: dict[str, Any]) -> Batch:
    """The vector's labels as a batch of one, normals turned into the optical frame."""
    tensors = {
        key: torch.from_numpy(value)[None] for key, value in vector.items() if value.ndim > 1
    }
    signs = torch.tensor(OFFICIAL_NORMAL_AXES)[:, None, None]
    depth = task == "depth"
    return Batch(
        image=tensors["image"],
        depth=tensors["depth_metric"] if depth else None,
        depth_target=tensors["target"].mean(dim=1) if depth else None,
        normals=None if depth else tensors["normals"] * signs,
        normals_target=None if depth else tensors["target"] * signs,
        captions=(None,),
        image_keys=(None,),
    )


@dataclass(frozen=True)
class Step:
    student: dict[str, torch.Tensor]
    teacher: dict[str, torch.Tensor]
    decoded: torch.Tensor


@pytest.fixture(scope="module")
def step(network: D3Network, vectors: dict[Task, dict[str, Any]]) -> Step:
    """The step up to the losses: one for both tasks, whose vectors have the same inputs."""
    vector, other = vectors["depth"], vectors["normals"]
    for name in ("image", "timesteps", "noise", "prompt_embedding", "timestep"):
        np.testing.assert_array_equal(vector[name], other[name])
    draw = NoiseDraw(
        torch.from_numpy(vector["timesteps"])[None], torch.from_numpy(vector["noise"])[None]
    )
    unet = network.unets["unet"]
    with torch.no_grad():
        latent = network.encode(torch.from_numpy(vector["image"])[None])
        teacher = teacher_features(unet, latent, draw, network.prompt_embedding("depth")[None])
        student: dict[str, torch.Tensor] = {}
        with tapped(unet, student):
            answer = network.predict_latent(latent, "depth")
        return Step(student, teacher, network.decode(answer))


@pytest.mark.parametrize("task", FILES)
def test_distance_to_the_teacher_is_the_official_one(
    step: Step, network: D3Network, vectors: dict[Task, dict[str, Any]], task: Task
) -> None:
    assert list(step.student) == list(step.teacher) == ["mid", *(f"us{i}" for i in range(1, 11))]
    channels = {name: feature.shape[1] for name, feature in step.student.items()}
    assert channels == feature_channels(network.unets["unet"])
    official = {name: float(vectors[task][f"loss.neg_cossim_{name}"]) for name in step.student}
    # Untrained adapters change nothing, so the student's features stand for the adapted ones.
    adapted = {name: f.repeat_interleave(LEVELS, dim=0) for name, f in step.student.items()}
    for name, feature in adapted.items():
        distance = float(feature_distance(feature, step.teacher[name]).mean())
        assert distance - 1 == pytest.approx(official[name], rel=TOLERANCE), name
    total = alignment_loss(adapted, step.teacher).mean()
    assert float(total) == pytest.approx(11 + sum(official.values()), rel=TOLERANCE)


@pytest.mark.parametrize("task", FILES)
def test_losses_on_labels_are_the_official_ones(
    step: Step, network: D3Network, vectors: dict[Task, dict[str, Any]], task: Task
) -> None:
    vector, axes = vectors[task], network.specs[task].axes
    raw = task_losses(task, step.decoded, labels(task, vector), axes, "metre")
    assert raw.keys() - {"local"} == LOSSES[task].keys()  # `local` is this project's own
    for name, official in LOSSES[task].items():
        expected = float(vector[f"loss.{official}"])
        assert float(raw[name]) == pytest.approx(expected, rel=TOLERANCE), name


def test_adapter_is_the_official_one() -> None:
    vector = np.load(VECTORS / "adapter.npz")
    config = AdapterConfig(
        depth=3, expansion=1, condition_width=8, condition_depth=2, condition_hidden=24
    )
    adapters = FeatureAdapters({"feature": 16}, config)
    state = {
        key.removeprefix("weight.").replace("adapter.", "adapters.feature.", 1): value
        for key, value in vector.items()
        if key.startswith("weight.")
    }
    adapters.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    with torch.no_grad():
        condition = adapters.condition(torch.from_numpy(vector["t"]))
        output = adapters.adapters["feature"](torch.from_numpy(vector["input"]), condition)
        # As a (B, C, h, w) feature, which is what it gets in training.
        image = torch.from_numpy(vector["input"]).transpose(1, 2).unflatten(2, (2, 5))
        adapted = adapters({"feature": image}, torch.from_numpy(vector["t"]))["feature"]
    np.testing.assert_allclose(condition, vector["condition"], rtol=TOLERANCE, atol=1e-6)
    np.testing.assert_allclose(output, vector["output"], rtol=TOLERANCE, atol=1e-6)
    assert torch.equal(adapted.flatten(2).transpose(1, 2), output)


def test_an_untrained_adapter_changes_nothing() -> None:
    adapter = Adapter(channels=6, depth=3, expansion=1, condition_width=4)
    x = torch.randn(2, 5, 6)
    assert torch.equal(adapter(x, torch.randn(2, 4)), x)


def test_noise_is_stable_diffusions() -> None:
    """x_t = sqrt(a) x + sqrt(1 - a) noise, a the product of 1 - beta; computed in float64."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    latent, noise = torch.randn(1, 4, 2, 2), torch.randn(1, 3, 4, 2, 2)
    timesteps = torch.tensor([[50, 495, 994]])
    seen = noised(latent, NoiseDraw(timesteps, noise))
    for i, t in enumerate(timesteps[0].tolist()):
        expected = kept[t] ** 0.5 * latent[0].numpy() + (1 - kept[t]) ** 0.5 * noise[0, i].numpy()
        np.testing.assert_allclose(seen[i], expected, rtol=1e-5, atol=1e-6)


def test_timesteps_are_one_from_each_third() -> None:
    generators = [torch.Generator().manual_seed(i) for i in range(4000)]
    draw = draw_noise(torch.Size([1, 1, 1]), generators)
    assert draw.timesteps.shape == (4000, 3)
    assert draw.timesteps.dtype == torch.int64
    for column, (low, high) in zip(
        draw.timesteps.T.tolist(), [(1, 333), (333, 666), (666, 998)], strict=True
    ):
        assert (min(column), max(column)) == (low, high)
        # Uniform: the mean of 4000 is within 5 standard errors (96 / 63) of the middle.
        assert np.mean(column) == pytest.approx((low + high) / 2, abs=8)
    assert float(draw.noise.std()) == pytest.approx(1, abs=0.05)
    again = draw_noise(torch.Size([1, 1, 1]), [torch.Generator().manual_seed(7)])
    assert torch.equal(again.timesteps[0], draw.timesteps[7])
    assert torch.equal(again.noise[0], draw.noise[7])

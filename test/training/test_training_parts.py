"""Parts of training: where it starts, LoRA, the teacher's targets, latents, scores, pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers.backbone_file import write_backbone_file
from helpers.official_files import write_base
from helpers.skip_network import plain_network, skip_network
from helpers.tiny_network import CROSS_ATTENTION_DIM, tiny_network, tiny_unet, tiny_vae
from helpers.training_configs import small_config, write_split_frames

from d3_ros.errors import BundleError, D3Error, DataError
from d3_ros.network import D3Network, load_bundle, write_bundle
from d3_ros.network.model.backbone import BACKBONE, Backbone
from d3_ros.network.model.tiny_codec import TinyCodec
from d3_ros.training.config.model_config import LoraConfig
from d3_ros.training.config.train_config import LossConfig, Stage, TaskShares, TrainConfig
from d3_ros.training.distillation.features import feature_channels, tapped, tapped_modules
from d3_ros.training.loading.batches import run_batches
from d3_ros.training.loading.latents import LatentCache
from d3_ros.training.loading.sample import Batch, Sample, collate
from d3_ros.training.loop import add_skips
from d3_ros.training.loop.lora import add_lora, merge_lora
from d3_ros.training.loop.results import LAST
from d3_ros.training.loop.start import caption_encoder, start_from
from d3_ros.training.loop.train import train
from d3_ros.training.loop.validation import validate, write_picture
from d3_ros.training.objectives.prompts import Prompts
from d3_ros.training.objectives.student import Student, task_rows
from d3_ros.types import TASKS, Task

LORA = LoraConfig(rank=2, alpha=4, targets=("to_q", "to_k", "to_v", "to_out.0", "conv1"))
LORA_TEXT = "model.lora={rank: 2, alpha: 4, targets: [to_q, to_k, to_v, to_out.0, conv1]}"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split_frames(tmp_path_factory.mktemp("frames") / "data")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion in miniature, with weights."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    unet, vae = tiny_unet(), tiny_vae()
    write_base(folder, unet, vae, CROSS_ATTENTION_DIM)
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    return folder


def tuned(frames: Path, start: Path | str, *overrides: str) -> TrainConfig:
    """Fine-tuning of a bundle at 32 x 48: one step of two frames, as they are."""
    return small_config(
        frames,
        "model.new=null",
        f"model.start={start}",
        "model.train_vae=false",
        "data.augment=false",
        "tasks={depth: 1.0, normals: 1.0}",
        "stages=[{size: [32, 48], batch: 2, steps: 2}]",
        *overrides,
    )


def outputs(network: D3Network, seed: int = 0) -> dict[Any, torch.Tensor]:
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    with torch.no_grad():
        return network.eval()(image)


# --- Features


def test_features_are_the_up_blocks_outputs() -> None:
    """Two blocks of two layers: of the four outputs the first two remain, the second upsampled."""
    unet = tiny_unet()
    inputs = (torch.randn(1, 4, 8, 8), 7, torch.randn(1, 3, CROSS_ATTENTION_DIM))
    seen: list[torch.Tensor] = []
    unet.up_blocks[0].register_forward_hook(lambda m, i, output: seen.append(output))
    features: dict[str, torch.Tensor] = {}
    with tapped(unet, features):
        plain = unet(*inputs, return_dict=False)[0]
    assert list(features) == ["mid", "us1", "us2"]
    assert {name: f.shape[1] for name, f in features.items()} == feature_channels(unet)
    assert features["us1"].shape[2:] == (4, 4)
    assert torch.equal(features["us2"], seen[0])  # the block's own output, after its upsampler
    before = dict(features)
    torch.testing.assert_close(unet(*inputs, return_dict=False)[0], plain)
    assert all(torch.equal(features[name], f) for name, f in before.items())  # hooks are gone
    assert not any(module._forward_hooks for module in tapped_modules(unet).values())


# --- Start


def test_a_bundle_goes_on_where_it_was(frames: Path, tiny_bundle: Path) -> None:
    network = start_from(tuned(frames, tiny_bundle)).network
    assert network.specs["depth"].processing_size == (32, 48)
    assert network.timesteps["depth"].item() == pytest.approx(187.3)
    for task, answer in outputs(load_bundle(tiny_bundle).network).items():
        torch.testing.assert_close(outputs(network)[task], answer, rtol=0, atol=1e-4)
    learned = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert learned == {"unets", "timesteps"}


def test_a_task_that_is_not_trained_stays_as_it_is(frames: Path, tmp_path: Path) -> None:
    """It shares its UNet with the one that is: that one learns on a copy."""
    start = write_bundle(
        tmp_path / "shared", tiny_network(shared_unet=True), name="s", license="x", source="x"
    )
    before = load_bundle(start).network
    bundle = train(tuned(frames, start, "tasks={depth: 1.0, normals: 0.0}"), tmp_path / "run")
    after = load_bundle(bundle).network
    assert after.specs["normals"].unet == "unet"
    for name, tensor in before.unets["unet"].state_dict().items():
        assert torch.equal(after.unets["unet"].state_dict()[name], tensor)
    torch.testing.assert_close(
        outputs(after)["normals"], outputs(before)["normals"], rtol=0, atol=1e-4
    )
    assert (outputs(after)["depth"] - outputs(before)["depth"]).abs().max() > 0.02
    with pytest.raises(DataError, match=r"train_vae would spoil .* \(normals\)"):
        start_from(tuned(frames, start, "tasks={depth: 1.0, normals: 0.0}", "model.train_vae=true"))


def test_stable_diffusion_is_where_the_official_recipe_starts(frames: Path, base: Path) -> None:
    network = start_from(tuned(frames, base)).network
    assert network.tasks == ("depth", "normals")
    assert network.timesteps["normals"].item() == 261
    for unet in network.unets.values():
        assert torch.equal(unet.conv_in.weight, tiny_unet_weight(base))
    assert network.prompt_embedding("depth").shape == (77, CROSS_ATTENTION_DIM)
    assert not torch.equal(network.prompt_embedding("depth"), network.prompt_embedding("normals"))


def tiny_unet_weight(base: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(base / "unet/diffusion_pytorch_model.safetensors")["conv_in.weight"]


def test_starts_that_are_not_there(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="unknown model 'd3_nanno'"):
        start_from(tuned(frames, "d3_nanno"))
    for nothing in ("nobody/nothing", "~nobody_/x", "x" * 300 + "/y"):
        with pytest.raises(D3Error, match=r"neither a folder nor in the local|name too long"):
            start_from(tuned(frames, nothing))
    one = tiny_network()
    depth_only = D3Network(
        one.vae,
        {"unet_depth": one.unets["unet_depth"]},
        {"depth": one.specs["depth"]},
        {"depth": one.prompt_embedding("depth")},
    )
    start = write_bundle(tmp_path / "depth", depth_only, name="d", license="x", source="x")
    with pytest.raises(DataError, match=r"has no normals: set tasks\.normals to 0"):
        start_from(tuned(frames, start))


# --- The teacher


def test_the_official_recipe_in_miniature(frames: Path, base: Path, tmp_path: Path) -> None:
    """From Stable Diffusion, under its teacher: every loss is there, and the bundle is plain."""
    config = tuned(frames, base, f"model.teacher={base}", "gradient_checkpointing=true")
    bundle = train(config, tmp_path / "run")
    first = (tmp_path / "run/log.jsonl").read_text().splitlines()[0]
    for name in ("depth.alignment", "normals.alignment", "depth.log_gradient"):
        assert f'"loss/{name}": ' in first
    assert load_bundle(bundle).network.tasks == ("depth", "normals")
    # Adapters stay in the checkpoint.
    checkpoint = next((tmp_path / "run/checkpoints").iterdir())
    from safetensors import safe_open

    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "adapters.depth.adapters.us1.layers.2.down_proj.weight" in names
    assert not any("visual_experts" in name or "teacher" in name for name in names)


def test_targets_do_not_depend_on_the_batch(frames: Path, base: Path, tmp_path: Path) -> None:
    """Noise belongs to the image: two images at once teach what one and one do."""
    for micro in (1, 2):
        config = tuned(frames, base, f"model.teacher={base}", f"micro_batch={micro}")
        train(config, tmp_path / str(micro))
    logs = [(tmp_path / str(m) / "log.jsonl").read_text().splitlines()[0] for m in (1, 2)]
    import json

    assert json.loads(logs[0]) == pytest.approx(json.loads(logs[1]), rel=1e-4)


def test_captions_are_prompts_where_frames_have_them(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d3_ros.network.bundle import prompt_embeddings as text

    network = tiny_network()
    own = network.prompt_embedding("depth")
    like = torch.zeros(1)
    plain = Prompts(network, None).embed("depth", ["a chair", None], like)
    assert torch.equal(plain, own.expand(2, -1, -1))
    encoded: list[str] = []
    real = text.PromptEncoder.__call__

    def counted(self: Any, prompt: str) -> torch.Tensor:
        encoded.append(prompt)
        return real(self, prompt)

    monkeypatch.setattr(text.PromptEncoder, "__call__", counted)
    prompts = Prompts(network, base)
    rows = prompts.embed("depth", ["a chair", None, "a door", "a chair"], like)
    assert encoded == ["a chair", "a door"]
    assert torch.equal(rows[1], own)
    assert torch.equal(rows[0], rows[3])
    assert not torch.equal(rows[0], rows[2])
    expected = text.prompt_embeddings(base, {"depth": "a chair"})["depth"]
    torch.testing.assert_close(rows[0], expected)


def test_captions_need_a_text_encoder(frames: Path, base: Path, tiny_bundle: Path) -> None:
    captions = "model.captions=true"
    assert caption_encoder(tuned(frames, base, captions).model) == base
    assert caption_encoder(tuned(frames, base).model) is None
    taught = tuned(frames, tiny_bundle, captions, f"model.teacher={base}")
    assert caption_encoder(taught.model) == base
    with pytest.raises(DataError, match=r"captions needs the text encoder"):
        caption_encoder(tuned(frames, tiny_bundle, captions).model)


# --- LoRA


def test_lora_begins_with_the_same_matrices_for_the_same_seed(frames: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    start = write_bundle(
        tmp_path / "start", plain_network(), name="plain", license="MIT", source="test"
    )
    given = ["model.new=null", "model.adapters=null", f"model.start={start}", LORA_TEXT]
    config = small_config(frames, *given)
    first, again = (start_from(config).network.unets["unet"].state_dict() for _ in "ab")
    torch.rand(3)
    other = start_from(dataclasses.replace(config, seed=4)).network.unets["unet"].state_dict()
    matrices = [key for key in first if "lora_A" in key]
    assert matrices
    for key in matrices:
        assert torch.equal(first[key], again[key])
        assert not torch.equal(first[key], other[key])


def test_image_sizes_that_the_network_cannot_have_are_told(frames: Path) -> None:
    for stage in ("size: [17, 16]", "size: [16, 16], more_sizes: [[16, 17]]"):
        config = small_config(frames, f"stages=[{{{stage}, batch: 2, steps: 2}}]")
        with pytest.raises(DataError, match=r"stages: .*must be multiples of 2"):
            start_from(config)


def test_merged_lora_is_the_same_network() -> None:
    network = tiny_network(shared_unet=True)
    plain = outputs(network)
    names = list(network.state_dict())
    unet = network.unets["unet"]
    add_lora(unet, LORA)
    for task, answer in outputs(network).items():
        assert torch.equal(answer, plain[task])  # it begins by changing nothing
    torch.manual_seed(0)
    learned = [p for p in unet.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in learned) < sum(p.numel() for p in unet.parameters()) / 2
    with torch.no_grad():
        for parameter in learned:
            parameter.normal_(std=0.05)
    unmerged = outputs(network)
    assert (unmerged["depth"] - plain["depth"]).abs().max() > 1e-2
    merge_lora(network)
    assert list(network.state_dict()) == names
    for task, answer in outputs(network).items():
        torch.testing.assert_close(answer, unmerged[task], rtol=0, atol=1e-5)


def test_lora_learns_and_leaves_a_plain_bundle(
    frames: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(train(tuned(frames, tiny_bundle, LORA_TEXT), tmp_path / "run"))
    before = load_bundle(tiny_bundle).network.state_dict()
    after = bundle.network.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert any("to_q.weight" in name for name in changed)
    assert any("conv1.weight" in name for name in changed)
    assert not any(name.startswith("vae.") or "conv2" in name for name in changed)


def test_lora_targets_that_name_nothing() -> None:
    with pytest.raises(DataError, match="name no layer"):
        add_lora(tiny_unet(), LoraConfig(2, 2, ("attention_of_another_network",)))


def test_without_peft_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(D3Error, match="pip install peft"):
        add_lora(tiny_unet(), LORA)


# --- Latents


def image_batch(keys: list[str | None], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return collate(
        [
            Sample(
                name=str(i),
                image=torch.rand(3, 32, 48, generator=generator) * 2 - 1,
                depth=None,
                depth_target=None,
                normals=None,
                normals_target=None,
                image_key=key,
            )
            for i, key in enumerate(keys)
        ]
    )


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_latents_are_encoded_once(
    where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_network()
    counted = []
    real = network.encode

    def encode(images: torch.Tensor) -> torch.Tensor:
        counted.append(len(images))
        return real(images)

    monkeypatch.setattr(network, "encode", encode)
    cache = LatentCache(network, where, tmp_path)
    batch = image_batch(["a", "b"])
    first = cache.encode(batch)
    torch.testing.assert_close(first, real(batch.image))
    assert torch.equal(cache.encode(batch.rows([1, 0])), first[[1, 0]])
    assert counted == [1, 1]
    if where == "disk":
        assert torch.equal(LatentCache(network, where, tmp_path).encode(batch), first)
        assert counted == [1, 1]
        # Another VAE has latents of its own.
        other = LatentCache(tiny_network(seed=5), where, tmp_path).encode(batch)
        assert not torch.allclose(other, first)
    altered = image_batch([None, None], seed=1)
    torch.testing.assert_close(cache.encode(altered), real(altered.image))


def test_cached_latents_train_the_same_network(
    frames: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    for where in ("none", "memory", "disk"):
        train(tuned(frames, tiny_bundle, f"latent_cache={where}"), tmp_path / where)
    states = [
        load_bundle(tmp_path / where / "last").network.state_dict()
        for where in ("none", "memory", "disk")
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-3)
        assert torch.equal(states[1][name], states[2][name])


# --- Scores, pictures, the best bundle


class Frames:
    """A source of ready samples."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def plan(self, seed: int, batch: int, count: int) -> list[int]:
        return [0] * count

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        assert rng is None
        return self.samples[index]


class Oracle(D3Network):
    """Answers with what is in the image: red as depth, a fixed normal."""

    def __init__(self) -> None:
        network = tiny_network()
        super().__init__(
            network.vae,
            dict(network.unets.items()),
            network.specs,
            {task: network.prompt_embedding(task) for task in network.tasks},
        )

    def forward(self, image: torch.Tensor, tasks: Any = None) -> Any:
        assert not self.training
        up = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]  # y up: network's axes
        return {"depth": image[:, :1].expand(-1, 3, -1, -1), "normals": up.expand_as(image)}


def known_sample() -> Sample:
    ramp = torch.linspace(-1, 1, 48).expand(32, 48)
    depth = 3 + ramp
    depth = torch.where(torch.arange(32)[:, None] < 5, torch.zeros(()), depth)
    normals = torch.zeros(3, 32, 48)
    normals[1, :, :24] = -1  # floor: y up is -y in the optical frame
    normals[2, :, 24:40] = -1  # a wall seen head-on
    return Sample(
        name="known",
        image=ramp.expand(3, 32, 48),
        depth=depth,
        depth_target=ramp,
        normals=normals,
        normals_target=normals,
    )


def test_scores_by_hand() -> None:
    network = Oracle().train()
    source = Frames([known_sample()])

    def answer(image: torch.Tensor, index: int) -> dict[Task, torch.Tensor]:
        return network(image, TASKS)

    scores = validate(network, source, TASKS, torch.device("cpu"), answer)
    assert scores["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert scores["normals_deg"] == pytest.approx((24 * 0 + 16 * 90) / 40, abs=1e-3)
    assert network.training
    assert validate(network, Frames([]), ("depth",), torch.device("cpu"), answer) == {}


def test_picture_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "p.png"
    source = Frames([known_sample()] * 2)
    write_picture(path, Oracle(), source, ("depth", "normals"), torch.device("cpu"))
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape == (2 * 32, 5 * 48, 3)
    image, truth, depth, normals, answer = np.split(picture[:32], 5, axis=1)
    assert (truth[:5] == 96).all()  # not known
    np.testing.assert_array_equal(truth[5:], depth[5:])
    assert (normals[:, 40:] == 0).all()
    assert (answer == answer[0, 0]).all()
    assert answer[0, 0, 1] == 255  # up is green
    assert image.std() > 10


def test_the_best_bundle_by_validation_is_kept(
    frames: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d3_ros.training.loop import results

    scores = iter([0.5, 0.2, 0.3, 0.25])
    monkeypatch.setattr(results, "objective_scores", lambda *_: {"abs_rel": next(scores)})
    config = tuned(
        frames,
        tiny_bundle,
        "stages=[{size: [32, 48], batch: 2, steps: 4}]",
        "every={checkpoint: 4, validation: 1, pictures: 2, log: 1}",
    )
    best = train(config, tmp_path / "run")
    assert best.name == "best"
    assert "step 2 of 4" in load_bundle(best).source
    assert "step 4 of 4" in load_bundle(tmp_path / "run/last").source
    assert sorted(p.name for p in (tmp_path / "run/pictures").iterdir()) == [
        "step_00000002.png",
        "step_00000004.png",
    ]


def test_tasks_share_a_batch_evenly() -> None:
    assert task_rows(8, 0.25) == [3, 7]
    assert task_rows(4, 1.0) == [0, 1, 2, 3]
    assert task_rows(10, 0.3) == [3, 6, 9]
    assert task_rows(4, 0.0) == []


def test_a_step_draws_one_size_for_all_its_batches(frames: Path) -> None:
    sizes = [(16, 16), (24, 32), (32, 16)]
    stage = Stage(sizes[0], batch=4, steps=12, more_sizes=tuple(sizes[1:]))
    config = small_config(frames, stages=(stage,), micro_batch=2)
    ranks = [
        [tuple(b.image.shape[2:]) for b in run_batches(config, 0, rank, 2, say=lambda text: None)]
        for rank in (0, 1)
    ]
    assert ranks[0] == ranks[1]
    assert set(ranks[0]) == set(sizes)
    later = run_batches(config, 5, 0, 2, say=lambda text: None)
    assert [tuple(b.image.shape[2:]) for b in later] == ranks[0][5:]


@pytest.mark.parametrize("backbone", [None, BACKBONE])
def test_a_small_network_gets_skips_and_learns(
    backbone: str | None, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its bundle: first the codec alone, then everything, from what the first part wrote."""
    known = Backbone(2)
    file = write_backbone_file(tmp_path / "photographs.pth", known)
    monkeypatch.setattr(add_skips, "pretrained_file", lambda: file)
    start = write_bundle(
        tmp_path / "start", plain_network(), name="plain", license="MIT", source="test"
    )
    skips = "channels: [12, 12], latent_channels: 4, blocks: 1, depth_components: 2"
    skips = f"{{{skips}, backbone: {backbone}}}" if backbone else f"{{{skips}}}"

    def given(start: Path, train_unet: bool) -> list[str]:
        return [
            "model.new=null",
            "model.adapters=null",
            f"model.start={start}",
            f"model.skips={skips}",
            f"model.train_unet={str(train_unet).lower()}",
            "stages=[{size: [16, 16], batch: 2, steps: 2}]",
            "losses.local=2",
            "losses.mixture=1",
        ]

    first = small_config(frames, *given(start, False))
    codec_only = load_bundle(_last(first, tmp_path / "first"))
    begun = load_bundle(start).network.unets["unet"].state_dict()
    after = codec_only.network.unets["unet"].state_dict()
    kept = "mid_block.resnets.0.conv1.weight"
    torch.testing.assert_close(after[kept], begun[kept])
    curves = ["model.depth_curve=2", "model.bundle_depth_curve=1.5"]
    more = [*given(tmp_path / "first" / LAST, True), "model.sharpening=3", *curves]
    more.append("model.near_margin=0.2")
    second = small_config(frames, *more)
    everything = load_bundle(_last(second, tmp_path / "second")).network
    assert isinstance(everything.vae, TinyCodec)
    assert (everything.vae.config.sharpening, everything.vae.config.depth_curve) == (3, 1.5)
    assert everything.vae.config.near_margin == 0.2
    assert codec_only.network.vae.config.sharpening == 0
    assert (everything.unets["unet"].state_dict()[kept] != begun[kept]).any()
    if backbone:
        after = everything.vae.picture.backbone.state_dict()
        for name, weight in known.state_dict().items():
            torch.testing.assert_close(after[name], weight, rtol=1e-3, atol=1e-3)
    with pytest.raises(DataError, match="objective autoencoder is for networks whose decoders"):
        start_from(dataclasses.replace(second, objective="autoencoder"))
    plain = dataclasses.replace(second.model, start=str(start), skips=None)
    with pytest.raises(DataError, match=r"model\.sharpening: .* has no small codec"):
        start_from(dataclasses.replace(second, model=plain))
    none_trained = dataclasses.replace(second, tasks=TaskShares(depth=0.0, normals=1.0))
    with pytest.raises(DataError, match=r"model\.depth_curve: train depth, too"):
        start_from(none_trained)
    with pytest.raises(DataError, match="depth_curve needs train_vae: true"):
        dataclasses.replace(second.model, train_vae=False, skips=None)
    no_curve = dataclasses.replace(second.model, depth_curve=None)
    with pytest.raises(DataError, match=r"model\.bundle_depth_curve: the network has none"):
        start_from(dataclasses.replace(second, model=no_curve))
    plain = dataclasses.replace(plain, sharpening=None)
    with pytest.raises(DataError, match=r"model\.depth_curve: .* has no small codec"):
        start_from(dataclasses.replace(second, model=plain))


def test_skips_learn_in_bfloat16() -> None:
    """As on a GPU: the layers compute in bfloat16, losses and gradients are finite."""
    network = skip_network().train()
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.uniform(1, 4, (2, 48, 64)).astype(np.float32))
    normals = torch.nn.functional.normalize(torch.randn(2, 3, 48, 64), dim=1)
    image = torch.from_numpy(rng.uniform(-1, 1, (2, 3, 48, 64)).astype(np.float32))
    batch = Batch(image, labels, labels / 2 - 1.25, normals, normals, (None,) * 2, (None,) * 2)
    prompts = {
        task: network.prompt_embedding(task).expand(count, -1, -1)
        for task, count in (("depth", 2), ("normals", 1))
    }
    student = Student(network, TaskShares(1.0, 0.5), LossConfig(depth_unit="pixel"), None)
    with torch.autocast("cpu", torch.bfloat16):
        values = student(batch, None, prompts, {})
    assert {"depth.mixture", "depth.local", "normals.normal_angle"} < values.keys()
    torch.stack(list(values.values())).sum().backward()
    for name, weight in network.vae.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def _last(config: TrainConfig, output: Path) -> Path:
    train(config, output)
    return output / LAST

"""The loop: resumption bit for bit, processes, accumulation, averages, divergence, bundles."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.paths import ROOT
from helpers.training_configs import small_config, write_frames
from safetensors.torch import load_file

from d3_ros.__main__ import main
from d3_ros.data.dataset_config import DataConfig
from d3_ros.errors import DataError, NonFiniteError
from d3_ros.network import load_bundle
from d3_ros.training.loading import batches
from d3_ros.training.loading.batches import micro_batches_of_processes
from d3_ros.training.loading.datasets import MixedSource, open_source
from d3_ros.training.loading.sample import Batch, Sample
from d3_ros.training.loop import checkpoints
from d3_ros.training.loop import run as runs
from d3_ros.training.loop.same_settings import check_settings, keep_settings
from d3_ros.training.loop.train import attention_kernel, refuse_non_finite, train

# Trains, one after the other, the runs of a JSON list: [data, output, [overrides ...]].
SCRIPT = """
import json, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from accelerate import Accelerator
from helpers.training_configs import small_config
from d3_ros.training.loop.train import train
Accelerator.end_training = lambda self: None  # which ends the group of processes
for data, output, overrides in json.loads(sys.argv[1]):
    train(small_config(Path(data), *overrides), Path(output))
if "stay" in sys.argv:
    signal.pause()
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frames(tmp_path_factory.mktemp("frames") / "data")


def start_process(
    runs_to_train: list[tuple[Path, Path, tuple[str, ...]]], *options: str, **environment: str
) -> subprocess.Popen[bytes]:
    """Train in another process: data, output and overrides of each run."""
    text = json.dumps([(str(data), str(output), rest) for data, output, rest in runs_to_train])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(tests=str(ROOT / "test")), text, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def final_state(output: Path) -> dict[str, Any]:
    folder = checkpoints.latest(output)
    assert folder is not None
    return {
        "weights": load_file(folder / "model.safetensors"),
        "optimizer": torch.load(folder / "optimizer.bin", weights_only=True)["state"],
        "state": torch.load(folder / "training_state.pt", weights_only=True),
    }


def assert_same_bits(one: Any, other: Any, place: str = "") -> None:
    if torch.is_tensor(one):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same_bits(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_bits(a, b, f"{place}[{i}]")
    else:
        assert one == other, place


@pytest.fixture(scope="module")
def whole(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbs: 4 steps, a checkpoint after 2."""
    output = tmp_path_factory.mktemp("whole") / "run"
    train(small_config(frames), output)
    return output


class Killed(BaseException):
    """Ends a run as a signal would: nothing of ours catches it."""


# Where a run is cut off: the name of what is replaced, and on which of its calls.
CUTS: dict[str, tuple[str, int]] = {
    "before the first step is taken": ("accelerate.Accelerator.clip_grad_norm_", 0),
    "between two checkpoints": ("accelerate.Accelerator.clip_grad_norm_", 3),
    "before a checkpoint is written": ("accelerate.Accelerator.save_state", 1),
    "within a checkpoint": ("torch.save", 3),
    "before a checkpoint is given its name": ("pathlib.Path.rename", 1),
    "before the old checkpoint is removed": ("d3_ros.training.loop.checkpoints._remove_all_but", 1),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_that_is_cut_off_goes_on_bit_for_bit(
    frames: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    target, call = CUTS[cut]
    module, _, name = target.rpartition(".")
    owner: Any = sys.modules.get(module) or getattr(
        sys.modules[module.rpartition(".")[0]], module.rpartition(".")[2]
    )
    real: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1000))

    def killed(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise Killed
        return real(*args, **kwargs)

    config = small_config(frames)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    bundle = train(config, tmp_path / "run")
    assert_same_bits(final_state(whole), final_state(tmp_path / "run"))
    # The hashes of all weights are in the manifest.
    assert (bundle / "bundle.json").read_text() == (whole / "last/bundle.json").read_text()
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 1


def test_a_killed_process_goes_on_bit_for_bit(frames: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoint, wherever it is then; another process goes on."""
    overrides = (
        "stages=[{size: [16, 16], batch: 2, steps: 12}]",
        "every={checkpoint: 2, validation: 12, log: 12}",
    )
    output = tmp_path / "killed"
    process = start_process([(frames, output, overrides)], "stay")
    try:
        while checkpoints.latest(output) is None:
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    train(small_config(frames, *overrides), tmp_path / "whole")
    train(small_config(frames, *overrides), output)
    assert_same_bits(final_state(tmp_path / "whole"), final_state(output))


def shared_batch(kind: str) -> tuple[str, ...]:
    """A run of three steps of four images for one or two processes."""
    return (
        "stages=[{size: [24, 32], batch: 4, steps: 3}]",
        "tasks={depth: 1.0, normals: 1.0}",
        f"optimizer.kind={kind}",
    )


@pytest.fixture(scope="module")
def of_two_processes(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes joined by gloo, as torchrun starts them: one for each optimiser."""
    root = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    wanted = [
        (frames, root / kind, (*shared_batch(kind), "micro_batch=2")) for kind in ("adamw", "muon")
    ]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    processes = [start_process(wanted, RANK=r, LOCAL_RANK=r, **group) for r in ("0", "1")]
    assert [process.wait() for process in processes] == [0, 0]
    return root


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_two_processes_learn_what_one_does(
    frames: Path, of_two_processes: Path, tmp_path: Path, kind: str
) -> None:
    """The same global batch: 2 processes x 2 images = 1 x 2 accumulated twice = 1 x 4."""
    train(small_config(frames, *shared_batch(kind), "micro_batch=2"), tmp_path / "accumulated")
    train(small_config(frames, *shared_batch(kind), "micro_batch=4"), tmp_path / "one")
    outputs = {
        "two": of_two_processes / kind,
        "accumulated": tmp_path / "accumulated",
        "one": tmp_path / "one",
    }
    two, accumulated, one = (final_state(output)["weights"] for output in outputs.values())
    assert two.keys() == one.keys()
    # Muon computes in bfloat16, where a last bit is 1/256 of a step.
    tight = 1e-6 if kind == "adamw" else 1e-5
    for name, tensor in two.items():
        torch.testing.assert_close(tensor, accumulated[name], rtol=1e-5, atol=tight, msg=name)
        # Four images at once round otherwise than two and two. Adam divides a gradient by its own
        # size, so that this may show where one vanishes; a step is 1e-3. Behind Muon's bfloat16
        # single weights were seen 1.4e-4 apart, and 2.5e-5 in the mean over a tensor.
        loose = 1e-4 if kind == "adamw" else 3e-4
        torch.testing.assert_close(tensor, one[name], rtol=1e-4, atol=loose, msg=name)
        assert (tensor - one[name]).square().mean().sqrt() < 5e-5, name
    lines = [(outputs[run] / "log.jsonl").read_text().splitlines() for run in ("one", "two")]
    for first, second in zip(*lines, strict=True):
        assert json.loads(second) == pytest.approx(json.loads(first), rel=1e-4)


# Python 3.12 and later warn of any fork beside threads; the children only read and augment.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_worker_processes_prepare_what_the_loop_itself_would(
    frames: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, caches = [], []

    def watched_sample(self: MixedSource, *key: Any) -> Sample:
        assert os.getpid() != parent, "the loop's own process prepares frames"
        return real_sample(self, *key)

    def watched_source(data: DataConfig, *rest: Any) -> MixedSource:
        caches.append(data.cache_gb)
        return open_source(data, *rest)

    def watched_batches(*arguments: Any) -> Iterator[Batch]:
        processes.append(arguments[-1])
        return micro_batches_of_processes(*arguments)

    parent, real_sample = os.getpid(), MixedSource.sample
    monkeypatch.setattr(MixedSource, "sample", watched_sample)
    monkeypatch.setattr(batches, "open_source", watched_source)
    monkeypatch.setattr(batches, "micro_batches_of_processes", watched_batches)
    config = small_config(frames, "worker_processes=true", "workers=2", "data.cache_gb=1.0")
    train(config, tmp_path / "run")
    assert_same_bits(final_state(whole), final_state(tmp_path / "run"))
    assert processes == [2, 2]  # one for each stage
    assert caches.count(0.5) == 2  # both workers together keep what is allowed


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_process_tells_of_a_lost_frame_in_one_line(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "data")
    config = small_config(frames)
    source = open_source(config.data, (24, 32), "train")
    (frames / "depth/1.png").unlink()
    prepared = micro_batches_of_processes(source, 3, [range(0, 4)], workers=1)
    with pytest.raises(DataError, match=r"^\S*depth/1.png [^\n]*$"):
        list(prepared)


def test_worker_processes_need_workers(frames: Path) -> None:
    with pytest.raises(DataError, match="worker_processes: set workers to at least 1"):
        small_config(frames, "worker_processes=true")


def test_a_batch_that_processes_cannot_share_is_refused(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs.Accelerator, "num_processes", 2)
    with pytest.raises(DataError, match="batch 2 is not a multiple of micro_batch 2 x 2 processes"):
        train(small_config(frames), tmp_path / "run")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_half_precision_without_a_gpu_is_refused(frames: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fp16 needs a GPU"):
        train(small_config(frames, "precision=fp16"), tmp_path / "run")


def test_recomputed_layers_give_the_same_gradients(frames: Path, tmp_path: Path) -> None:
    for checkpointing in ("true", "false"):
        train(
            small_config(frames, f"gradient_checkpointing={checkpointing}"),
            tmp_path / checkpointing,
        )
    ours, theirs = (final_state(tmp_path / run)["weights"] for run in ("true", "false"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=name)


def test_small_images_on_a_cpu_take_plain_attention() -> None:
    def batch(height: int, width: int) -> Batch:
        image = torch.zeros(1, 3, height, width)
        return Batch(image, None, None, None, None, (None,), (None,))

    for size, fused in (((96, 128), False), ((480, 640), True)):
        with attention_kernel(batch(*size)):
            assert torch.backends.cuda.flash_sdp_enabled() == fused
        assert torch.backends.cuda.flash_sdp_enabled()


def test_the_bundle_holds_the_moving_average(frames: Path, tmp_path: Path) -> None:
    """By hand: the decay is min(0.9, (1 + n) / (10 + n)) before n = 1, 2, ... updates."""
    config = small_config(frames, "every={checkpoint: 1, validation: 1, log: 1}")
    steps = []
    real = runs.EMAModel.step

    def watched(self: Any, parameters: Any) -> None:
        parameters = list(parameters)
        steps.append(parameters[0].detach().clone())
        real(self, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.EMAModel, "step", watched)
        train(config, tmp_path / "run")
    average = steps[0]
    for n, weights in enumerate(steps[1:], start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weights
    shadow = final_state(tmp_path / "run")["state"]["ema"]["shadow_params"][0]
    torch.testing.assert_close(shadow, average)
    network = load_bundle(tmp_path / "run/last").network
    first = next(network.parameters())
    torch.testing.assert_close(first, average, rtol=1e-3, atol=1e-4)  # stored as fp16
    assert not torch.equal(average, steps[-1])


def test_a_loss_that_is_not_finite_stops_the_run(frames: Path, tmp_path: Path) -> None:
    config = small_config(frames)
    config = replace(config, losses=replace(config.losses, mse=float("inf")))
    with pytest.raises(NonFiniteError, match=r"loss is not finite at step 0 .*depth\.mse") as told:
        train(config, tmp_path / "run")
    assert str(told.value).endswith("last good checkpoint: none, the run had just begun")
    assert checkpoints.latest(tmp_path / "run") is None


def test_a_gradient_that_is_not_finite_reaches_no_weight_and_no_checkpoint(
    frames: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss stays finite. What was good goes on, bit for bit, as if nothing had happened."""
    real, calls = runs.Accelerator.backward, iter(range(10))

    def poisoned(self: Any, loss: torch.Tensor) -> None:
        real(self, loss)
        if next(calls) == 2:  # the third step; a checkpoint follows the second and the fourth
            next(p for p in self._models[0].parameters() if p.grad is not None).grad[0] = math.nan

    config, output = small_config(frames), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(runs.Accelerator, "backward", poisoned)
        with pytest.raises(NonFiniteError, match=r"gradient is not finite at step 2 .*_00000002$"):
            train(config, output)
    good = checkpoints.latest(output)
    assert good is not None and good.name == "step_00000002"
    assert all(tensor.isfinite().all() for tensor in final_state(output)["weights"].values())
    train(config, output)
    assert_same_bits(final_state(whole), final_state(output))


def test_an_overflow_by_the_loss_scale_of_fp16_is_left_to_accelerate(tmp_path: Path) -> None:
    """It skips the step and halves the scale; a scale below 1 is the run's own fault."""

    def run(scale: float) -> Any:
        scaler = SimpleNamespace(get_scale=lambda: scale)
        return SimpleNamespace(
            accelerator=SimpleNamespace(scaler=scaler),
            state=checkpoints.TrainingState(),
            output=tmp_path,
        )

    refuse_non_finite(run(65536.0), {"total": 1.0}, math.inf)
    with pytest.raises(NonFiniteError, match="the gradient is not finite"):
        refuse_non_finite(run(0.5), {"total": 1.0}, math.inf)
    with pytest.raises(NonFiniteError, match="the loss is not finite"):
        refuse_non_finite(run(65536.0), {"total": math.nan}, 1.0)


def test_weights_that_overflow_reach_no_checkpoint(frames: Path, tmp_path: Path) -> None:
    """Loss and gradient are finite, the step is too long for float32."""
    config = small_config(frames, "every={checkpoint: 1, validation: 100}")
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=1e39))
    with pytest.raises(NonFiniteError, match="weights are not finite after step 0: lower"):
        train(config, tmp_path / "run")
    assert checkpoints.latest(tmp_path / "run") is None
    assert not (tmp_path / "run/last").exists()


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(
    frames: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files may grow to 200 kB: the second checkpoint's optimiser state does not fit."""
    real, config, output = checkpoints.save, small_config(frames), tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(*arguments: Any) -> Path:
        if checkpoints.latest(output) is None:
            return real(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        try:
            return real(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(checkpoints, "save", save)
    with pytest.raises(DataError, match=r"step_00000004 cannot be written .*free some space") as e:
        train(config, output)
    assert "\n" not in str(e.value)
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step_00000002"]
    monkeypatch.undo()
    train(config, output)
    assert_same_bits(final_state(whole), final_state(output))


def test_an_output_that_cannot_be_written_is_one_line(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "run/log.jsonl").mkdir(parents=True)
    settings = ["model.start=d3_nano", "stages=[{size: [16, 16], batch: 1, steps: 1}]"]
    settings += ["micro_batch=1", "workers=0", "every.log=1", f"data={frames}"]
    for output in (file, file / "below", tmp_path / "run"):
        command = ["train", "--config", "finetune.yaml", *settings, f"output={output}"]
        assert main(command) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"{output} cannot be written" in error
    assert file.read_text() == "mine"
    codec = ["--stage", "codec", "--config", "train_codec.yaml", "model=d3_nano", "device=cpu"]
    images = ["encoder_blocks=[0, 0, 1]", "decoder_blocks=[1, 0, 0]", f"data={frames}"]
    assert main(["train", *codec, *images, f"output={file}"]) == 1
    assert f"{file} cannot be written" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_one_line(frames: Path, whole: Path, tmp_path: Path) -> None:
    for name in ("training_state.pt", "model.safetensors", "optimizer.bin"):
        output = tmp_path / name
        shutil.copytree(whole, output)
        good = checkpoints.latest(output)
        assert good is not None
        (good / name).write_bytes((good / name).read_bytes()[:200])
        with pytest.raises(DataError, match="step_00000004 does not fit this configuration") as e:
            train(small_config(frames), output)
        assert "\n" not in str(e.value)


def test_another_network_does_not_take_a_checkpoint(
    frames: Path, whole: Path, tmp_path: Path
) -> None:
    other = small_config(frames, "model.new.unet_channels=[16, 32]")
    with pytest.raises(
        DataError, match=r"other settings \(model\.new\.unet_channels; .*another out"
    ):
        train(other, whole)
    # A folder of an earlier version, which kept no settings.
    output = tmp_path / "old"
    shutil.copytree(whole, output)
    (output / "configuration.json").unlink()
    with pytest.raises(DataError, match=r"does not fit this configuration.*another output folder"):
        train(other, output)
    assert not (output / "configuration.json").exists()


def test_settings_of_a_run_that_goes_on(
    frames: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some may change in a run that is not finished, those of the machine in any."""
    config = small_config(frames)
    said: list[str] = []
    for machine in ("workers=1", "threads=2", "every.log=3"):
        check_settings(small_config(frames, machine), whole, 4, said.append)
    assert not said
    rate = small_config(frames, "optimizer.learning_rate=1e-4")
    check_settings(rate, whole, 2, said.append)
    assert said == [f"{whole}: goes on with other settings than before: optimizer.learning_rate"]
    with pytest.raises(DataError, match=r"is finished, with other settings \(optimizer\.learning"):
        check_settings(rate, whole, 4, said.append)
    with pytest.raises(DataError, match=r"was begun, with other settings \(seed; "):
        check_settings(small_config(frames, "seed=9"), whole, 2, said.append)
    check_settings(small_config(frames, "seed=9"), whole, None, said.append)  # a run that begins
    keep_settings(config, tmp_path)
    # A relative path of the same data is no change; other data are told.
    monkeypatch.chdir(frames.parent)
    said.clear()
    check_settings(small_config(Path(frames.name)), tmp_path, 2, said.append)
    assert not said
    check_settings(small_config(tmp_path), tmp_path, 2, said.append)
    assert said == [f"{tmp_path}: goes on with other settings than before: data.datasets"]
    (tmp_path / "configuration.json").write_text("{")
    with pytest.raises(DataError, match=r"configuration\.json is damaged"):
        check_settings(config, tmp_path, 2, said.append)


def test_a_bundle_and_its_numbers_come_out(whole: Path) -> None:
    bundle = load_bundle(whole / "last")
    assert bundle.network.tasks == ("depth", "normals")
    assert bundle.network.specs["depth"].processing_size == (24, 32)
    assert bundle.license == "Apache-2.0"
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/total" in line] == [1, 2, 3, 4]
    for line in lines:
        weights = {"mse": 8, "scale_shift_invariant": 2, "log_gradient": 20, "normal_angle": 3}
        parts = (
            weights.get(name.split(".")[1], 0) * value
            for name, value in line.items()
            if "." in name
        )
        assert line["loss/total"] == pytest.approx(sum(parts), rel=1e-5)
    assert list((whole / "tensorboard").iterdir())


def test_loss_falls_on_one_frame(tmp_path: Path) -> None:
    frames = write_frames(tmp_path / "data", count=1)
    config = small_config(
        frames,
        "stages=[{size: [24, 32], batch: 2, steps: 40}]",
        "every={checkpoint: 40, validation: 40, log: 1}",
        "data.augment=false",
    )
    train(config, tmp_path / "run")
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    totals = [json.loads(line)["loss/total"] for line in lines if "loss/total" in line]
    assert totals[-1] < totals[0] / 2


def test_without_accelerate_one_line_says_what_to_install(
    frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for name in ("train", "run", "checkpoints"):
        monkeypatch.delitem(sys.modules, f"d3_ros.training.loop.{name}")
    arguments = ["--config", "finetune.yaml", f"data={frames}", f"output={tmp_path / 'run'}"]
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert "training needs accelerate: pip install -r scripts/requirements/training.txt" in error
    assert len(error.splitlines()) == 1

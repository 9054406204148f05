"""Which library computes a bundle's network: ONNX Runtime or PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from d3_ros.errors import DeviceError
from d3_ros.network.bundle.manifest import Codec, Manifest, OnnxExport, open_bundle, read_manifest
from d3_ros.network.inference.device_names import check_device_name
from d3_ros.network.inference.runtime import Runtime

logger = logging.getLogger(__name__)

RuntimeName = Literal["auto", "torch", "onnx"]
RUNTIMES: tuple[RuntimeName, ...] = ("auto", "torch", "onnx")
# A GPU that PyTorch may use; a desktop's driver, and a Jetson's.
GPU_FILES = ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu")


def load_runtime(
    path_or_name: str | Path,
    device: str,
    dtype: str,
    codec: Codec,
    optimisations: Collection[str] | None,
    runtime: RuntimeName,
    providers: Sequence[str],
    threads: int,
) -> Runtime:
    """Load a bundle with the runtime asked for; arguments as in `D3Predictor.from_pretrained`.

    Raises:
        BundleError: the bundle is damaged.
        DeviceError: the runtime, its device or its provider is not there, or `device` is no name.
    """
    check_device_name(device)  # ONNX Runtime chooses by provider and would not look at it
    folder, manifest = read_manifest(path_or_name)
    export, obstacle = _usable_export(manifest, dtype, codec, optimisations)
    has_torch = find_spec("torch") is not None
    if runtime == "auto" and export is not None and has_torch and _gpu_is_wanted(device):
        export, obstacle = None, "PyTorch has a GPU"
    if export is None and (runtime == "onnx" or dtype == "int8"):
        raise DeviceError(f"{folder} cannot run on ONNX Runtime: {obstacle}")
    if runtime != "torch" and export is not None:
        from d3_ros.network.inference.onnx_runtime import load_onnx_runtime

        logger.info("%s runs on ONNX Runtime: the bundle has graphs for it", manifest.name)
        wanted = providers or (["cuda"] if device.startswith("cuda") else [])
        if device == "cpu":
            wanted = providers or ["cpu"]
        open_bundle(folder)
        return load_onnx_runtime(folder, manifest, export, wanted, threads)
    if not has_torch:
        reason = obstacle if runtime == "auto" else "runtime torch was asked for"
        raise DeviceError(
            f"{folder} needs PyTorch here ({reason}), which is not installed: "
            "pip install -r scripts/requirements/torch.txt"
        )
    from d3_ros.network.inference.torch_runtime import load_torch_runtime

    reason = "as asked for" if runtime == "torch" else obstacle
    logger.info("%s runs on PyTorch: %s", manifest.name, reason)
    return load_torch_runtime(folder, device, dtype, codec, optimisations)


def _usable_export(
    manifest: Manifest, dtype: str, codec: Codec, optimisations: Collection[str] | None
) -> tuple[OnnxExport | None, str]:
    """The export that fits what is asked for, or why there is none."""
    precision = "fp32" if dtype == "auto" else dtype
    exports = [e for e in manifest.onnx if (e.codec, e.precision) == (codec, precision)]
    if optimisations is not None:
        return None, "its graphs are specialised already (specialise: false needs PyTorch)"
    if find_spec("onnxruntime") is None:
        return None, "onnxruntime is not installed"
    if not exports:
        return None, (
            f"it has no ONNX graphs for codec {codec} in {precision} (python -m d3_ros export)"
        )
    if missing := set(manifest.tasks) - set(exports[0].tasks):
        return None, f"its ONNX graphs lack {min(missing)}"
    return exports[0], ""


def _gpu_is_wanted(device: str) -> bool:
    if device == "auto":
        return any(Path(file).exists() for file in GPU_FILES)
    return device.startswith("cuda")

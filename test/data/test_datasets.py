"""Datasets: what is read from each layout, what is refused or left out, and how sets are mixed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d3_ros.data import frame_check, official_layout, plain_folder, readers
from d3_ros.data.benchmark_layouts import CompletionReader
from d3_ros.data.dataset_config import DataConfig, DatasetConfig
from d3_ros.errors import D3Error, DataError
from d3_ros.training.loading.datasets import MixedSource, open_source
from d3_ros.training.loading.sample import collate

HEIGHT, WIDTH, SIZE = 12, 16, (6, 8)


def folder(root: Path, names: list[str], normals: bool = False) -> Path:
    """Frames whose depth is a ramp from 1 m to 2.5 m; grey pictures, level by place."""
    for kind in ("rgb", "depth", *(["normals"] * normals)):
        (root / kind).mkdir(parents=True, exist_ok=True)
    ramp = np.tile(np.linspace(1000, 2500, WIDTH).astype(np.uint16), (HEIGHT, 1))
    for i, name in enumerate(names):
        cv2.imwrite(str(root / "rgb" / f"{name}.png"), np.full((HEIGHT, WIDTH, 3), 10 * i, "u1"))
        cv2.imwrite(str(root / "depth" / f"{name}.png"), ramp)
        if normals:
            pixels = np.full((HEIGHT, WIDTH, 3), (1, 128, 128), np.uint8)  # BGR of (0, 0, -1)
            cv2.imwrite(str(root / "normals" / f"{name}.png"), pixels)
    return root


def config(*paths: Path, kind: str = "folder", **changes: Any) -> DataConfig:
    datasets = tuple(DatasetConfig(kind, str(path), 1.0, False) for path in paths)
    return DataConfig(
        **{"datasets": datasets, "augment": False, "cache_gb": 0.1, "strict": False, **changes}
    )


# ------------------------------------------------------------------------------------ plain folder


def test_a_plain_folder_by_hand(tmp_path: Path) -> None:
    source = open_source(config(folder(tmp_path / "f", ["2", "10"], normals=True)), SIZE, "train")
    assert len(source) == 2
    assert source.summary == (
        f"{tmp_path / 'f'} (folder, train): 2 frames, 16 x 12, depth and normals",
    )
    first, second = (source.sample(i, None) for i in range(2))
    assert (first.name, second.name) == ("2", "10"), "as people count"
    assert first.image.shape == (3, *SIZE)
    assert (first.image == -1).all()
    assert second.image[0, 0, 0] == pytest.approx(10 / 255 * 2 - 1)
    assert first.depth is not None
    assert first.depth_target is not None
    assert first.normals is not None
    assert first.depth.shape == (HEIGHT, WIDTH), "labels at their own size"
    assert first.depth[3, 0] == 1.0
    # 2 % and 98 % quantiles of the 16 columns: 1 + 0.02 * 1.5 and 2.5 - 0.02 * 1.5, as 12 equal
    # rows put each column at 12 neighbouring places; column 8 of 15 is at 1.8 m.
    quantiles = np.quantile(np.tile(first.depth[0].numpy(), HEIGHT), (0.02, 0.98))
    expected = (1.8 - quantiles[0]) / (quantiles[1] - quantiles[0]) * 2 - 1
    assert first.depth_target[0, 8] == pytest.approx(expected, abs=1e-4)
    assert first.depth_target[0, 0] == -1.0
    augmented = config(tmp_path / "f", depth_share=0.5, augment=True)
    small = open_source(augmented, SIZE, "train").sample(0, np.random.default_rng(1))
    assert small.depth_target is not None
    low, high = np.quantile(small.depth_target, (0.02, 0.98))
    assert (low, high) == pytest.approx((-0.5, 0.5), abs=1e-3)
    assert first.normals[:, 5, 5].tolist() == [0, 0, -1]
    assert first.caption is None
    assert first.image_key != second.image_key
    assert source.sample(0, None).image_key == first.image_key
    collate([first, second])


def test_metres_in_npy_files_with_anything_in_them(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ["a"])
    (root / "depth" / "a.png").unlink()
    depth = np.full((HEIGHT, WIDTH), 3.0, np.float64)
    depth[0] = [np.nan, np.inf, -np.inf, -1.0, 0.0, 80.0, 1e-6, *[2.0] * 9]
    np.save(root / "depth" / "a.npy", depth)
    (root / "normals").mkdir()
    normals = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    normals[0], normals[1, :, 0] = (0, -3.0, -4.0), np.nan
    np.save(root / "normals" / "a.npy", normals)
    sample = open_source(config(root), SIZE, "train").sample(0, None)
    assert sample.depth is not None
    assert sample.normals is not None
    assert sample.depth_target is not None
    assert (sample.depth[0, :7] == 0).all(), "not known: not finite, not positive, beyond 80 m"
    assert (sample.depth[0, 7:] == 2).all()
    np.testing.assert_allclose(sample.normals[:, 0, 0], [0, -0.6, -0.8], atol=1e-6)
    assert not sample.normals[:, 1:].any()
    for value in (sample.depth, sample.depth_target, sample.normals):
        assert torch.isfinite(value).all()


def test_split_txt_is_obeyed(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ["a", "b", "c", "d"])
    (root / "split.txt").write_text("# by hand\na train\nb test\n\nc train\ngone test\n")
    train, test = (open_source(config(root), SIZE, side) for side in ("train", "test"))
    assert [train.sample(i, None).name for i in range(len(train))] == ["a", "c"]
    assert [test.sample(i, None).name for i in range(len(test))] == ["b"]
    assert any("split.txt names gone, which is not there" in line for line in train.summary)
    (root / "split.txt").write_text("a train\nb maybe\n")
    with pytest.raises(DataError, match=r"split\.txt:2: 'b maybe'"):
        open_source(config(root), SIZE, "train")


def test_files_as_editors_and_people_make_them(tmp_path: Path) -> None:
    """A byte-order mark at the beginning, a suffix in capitals, two files of one frame."""
    root = folder(tmp_path / "f", ["a", "b"])
    (root / "depth" / "a.png").unlink()
    with (root / "depth" / "a.NPY").open("wb") as file:
        np.save(file, np.full((HEIGHT, WIDTH), 2.0, np.float32))
    mark = "\ufeff"
    (root / "split.txt").write_text(f"{mark}a train\nb train\n", encoding="utf-8")
    camera = {"width": WIDTH, "height": HEIGHT, "fx": 20, "fy": 20, "cx": 7.5, "cy": 5.5}
    (root / "intrinsics.json").write_text(mark + json.dumps(camera), encoding="utf-8")
    source = open_source(config(root, strict=True), SIZE, "train")
    assert [source.sample(i, None).name for i in range(len(source))] == ["a", "b"]
    assert source.sample(0, None).depth[0, 0] == 2.0
    (root / "rgb" / "a.jpg").write_bytes((root / "rgb" / "a.png").read_bytes())
    with pytest.raises(DataError, match="are both frame 'a': remove one"):
        open_source(config(root), SIZE, "train")


def test_a_declared_size_takes_no_memory(tmp_path: Path) -> None:
    """16 TB by the header of a file of 128 bytes."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2000000, 2000000), }"
    content = b"\x93NUMPY\x01\x00" + (117).to_bytes(2, "little") + header.ljust(116) + b"\n"
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npy is missing or damaged"):
        plain_folder.read_depth(tmp_path / "a.npy")
    bomb = {"gt": np.ones((4, 4), np.float32), "sparse_1": np.zeros((3000, 3000), np.float32)}
    np.savez_compressed(tmp_path / "depth.npz", **bomb)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="more values than its picture has pixels"):
        CompletionReader(tmp_path).read("a")


def test_millimetres_that_were_clipped_are_not_known(tmp_path: Path) -> None:
    """A sky at the end of 16 bits is no surface at 65.5 m."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[1, 65_499, 65_500, 65_535, 0]], np.uint16))
    expected = np.array([[0.001, 65.499, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(plain_folder.read_depth(path), expected)
    kept = plain_folder.encode_depth(np.array([[65.499, 65.4996, 65.51, 80.0]]))
    np.testing.assert_array_equal(kept, [[65_499, 0, 0, 0]])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"width": 8, "height": 6, "fx": 5, "fy": 5, "cx": NaN, "cy": 2}', "not finite"),
        (b'{"width": 1e999, "height": 6, "fx": 5, "fy": 5, "cx": 3, "cy": 2}', "not intrinsics"),
        (b"[" * 100_000, "not intrinsics"),
        (
            b'{"width": 8, "height": 6, "fx": 5, "fy": 5, "cx": 3, "cy": 2,'
            b'"distortion_model": "plumb_bob", "distortion": [1, 2]}',
            "takes 4 or 5 coefficients",
        ),
    ],
)
def test_intrinsics_that_are_none_are_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "intrinsics.json").write_bytes(content)
    with pytest.raises(DataError, match=says):
        plain_folder.read_intrinsics(tmp_path)


def test_a_split_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_bytes("k\xfcche train\n".encode("latin-1"))
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        plain_folder.read_split(tmp_path)


def test_hdf5_that_points_into_another_file_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the optional package h5py is not installed")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["depth"] = np.ones((4, 4), np.float32)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["depth"] = h5py.ExternalLink("secret.h5", "depth")
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "depth", (4, 4))
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("depth", layout)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("depth", (4, 4), "f4", external=[(str(tmp_path / "secret.h5"), 0, 64)])
    with h5py.File(tmp_path / "large.h5", "w") as file:
        file.create_dataset("depth", (100_000, 100_000), "f4", chunks=(64, 64))
    for name in ("link", "virtual", "raw"):
        with pytest.raises(DataError, match="is missing or not in this file"):
            official_layout.read_official_depth(tmp_path / f"{name}.h5")
    with pytest.raises(DataError, match="is too large"):
        official_layout.read_official_depth(tmp_path / "large.h5")


def test_nothing_to_test_is_empty_and_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ["a"])
    assert len(open_source(config(root), SIZE, "test")) == 0
    (root / "split.txt").write_text("a test\n")
    with pytest.raises(DataError, match="no usable frame"):
        open_source(config(root), SIZE, "train")


def damage(root: Path, fault: str) -> None:
    """Damage the frame b."""
    depth, rgb = root / "depth" / "b.png", root / "rgb" / "b.png"
    if fault == "no depth":
        depth.unlink()
    elif fault == "another size":
        cv2.imwrite(str(depth), np.full((HEIGHT, WIDTH + 2), 900, np.uint16))
    elif fault == "nothing known":
        cv2.imwrite(str(depth), np.zeros((HEIGHT, WIDTH), np.uint16))
    elif fault == "all NaN":
        depth.unlink()
        np.save(root / "depth" / "b.npy", np.full((HEIGHT, WIDTH), np.nan, np.float32))
    elif fault == "cut depth":
        depth.write_bytes(depth.read_bytes()[:-20])
    elif fault == "cut picture":
        rgb.write_bytes(rgb.read_bytes()[:-20])
    elif fault == "cut array":
        depth.unlink()
        np.save(root / "depth" / "b.npy", np.ones((HEIGHT, WIDTH), np.float32))
        array = root / "depth" / "b.npy"
        array.write_bytes(array.read_bytes()[:-20])
    elif fault == "8 bit":
        cv2.imwrite(str(depth), np.ones((HEIGHT, WIDTH), np.uint8))
    elif fault == "intrinsics":
        entry = {"width": 5, "height": 5, "fx": 1, "fy": 1, "cx": 2, "cy": 2}
        (root / "intrinsics.json").write_text(json.dumps({"b": entry}))


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        ("no depth", "no depth", "b.png has no depth of its name"),
        ("another size", "another size", "b.png is 18 x 12 pixels, but its frame is 16 x 12"),
        ("nothing known", "nothing known", "b.png is known at 0 pixels only"),
        ("all NaN", "nothing known", "b.npy is known at 0 pixels only"),
        (
            "cut depth",
            "cannot be read",
            "b.png is damaged or cut short",
        ),
        (
            "cut picture",
            "cannot be read",
            "b.png is damaged or cut short",
        ),
        ("cut array", "cannot be read", "b.npy is missing or damaged"),
        ("8 bit", "cannot be read", "uint16 millimetres"),
        ("intrinsics", "intrinsics of another size", "are of 5 x 5"),
    ],
)
def test_a_bad_frame_is_named_counted_and_left_out(
    tmp_path: Path, fault: str, reason: str, detail: str
) -> None:
    root = folder(tmp_path / "f", ["a", "b", "c"])
    damage(root, fault)
    source = open_source(config(root), SIZE, "train")
    assert [source.sample(i, None).name for i in range(len(source))] == ["a", "c"]
    (line,) = source.summary
    assert f"2 frames, 16 x 12, depth; 1 of 3 left out: 1 x {reason} (b); the first: " in line
    assert detail in line
    assert "\n" not in line
    with pytest.raises(DataError, match=r"1 of 3 left out: .*data\.strict=false"):
        open_source(config(root, strict=True), SIZE, "train")


def test_what_was_found_is_remembered_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "f", ["a", "b"])
    before = sorted(root.rglob("*"))
    open_source(config(root), SIZE, "train")
    read: list[str] = []
    whole = readers.FolderReader.read
    monkeypatch.setattr(
        readers.FolderReader, "read", lambda self, name: read.append(name) or whole(self, name)
    )
    assert len(open_source(config(root), SIZE, "train")) == 2
    assert read == []
    damage(root, "cut depth")
    assert len(open_source(config(root), SIZE, "train")) == 1
    assert read == ["b"]
    assert sorted(root.rglob("*")) == before, "nothing is written beside the data"


def test_strays_are_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ["a"])
    (root / "depth" / "x.png").write_bytes((root / "depth" / "a.png").read_bytes())
    _, stray = open_source(config(root), SIZE, "train").summary
    assert stray.strip() == f"{root / 'depth' / 'x.png'} has no picture in rgb/"


def test_frames_of_several_sizes_have_labels_at_the_networks(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ["a", "b"])
    for kind in ("rgb", "depth"):
        small = cv2.imread(str(root / kind / "b.png"), cv2.IMREAD_UNCHANGED)[:6, :8]
        cv2.imwrite(str(root / kind / "b.png"), small)
    source = open_source(config(root), SIZE, "train")
    assert "16 x 12 (1), 8 x 6 (1)" in source.summary[0]
    batch = collate([source.sample(i, None) for i in range(2)])
    assert batch.depth is not None
    assert batch.depth.shape == (2, *SIZE)


def test_normals_are_zero_where_a_frame_lacks_them_and_derived_where_all_do(tmp_path: Path) -> None:
    some = folder(tmp_path / "some", ["a", "b"], normals=True)
    (some / "normals" / "b.png").unlink()
    batch = collate([open_source(config(some), SIZE, "train").sample(i, None) for i in range(2)])
    assert batch.normals is not None
    assert batch.normals[0].any()
    assert not batch.normals[1].any()

    none = folder(tmp_path / "none", ["a"])
    derive = DataConfig((DatasetConfig("folder", str(none), 1.0, True),), False, 0.1, False)
    with pytest.raises(DataError, match="no intrinsics"):
        open_source(derive, SIZE, "train")
    camera = {"width": WIDTH, "height": HEIGHT, "fx": 20, "fy": 20, "cx": 7.5, "cy": 5.5}
    (none / "intrinsics.json").write_text(json.dumps(camera))
    sample = open_source(derive, SIZE, "train").sample(0, None)
    assert sample.normals is not None
    assert sample.normals[0, 6, 6] > 0.1, "it recedes to the right, as a corridor's left wall"
    np.testing.assert_allclose(sample.normals.norm(dim=0)[4:8, 4:12], 1, atol=1e-5)


def test_augmented_samples_have_labels_at_their_own_image(tmp_path: Path) -> None:
    root = folder(tmp_path / "f", ["a", "b"], normals=True)
    source = open_source(config(root, augment=True), SIZE, "train")
    one, again = (source.sample(1, np.random.default_rng(3)) for _ in "ab")
    assert torch.equal(one.image, again.image)
    assert one.image.dtype == torch.float32
    assert one.depth is not None
    assert one.depth.shape == SIZE
    assert one.image_key is None
    assert -1 <= one.image.min() <= one.image.max() <= 1
    plain = source.sample(1, None)
    assert plain.image_key is not None
    (root / "split.txt").write_text("a train\nb test\n")
    tested = open_source(config(root, augment=True), SIZE, "test")
    assert tested.sample(0, np.random.default_rng(0)).image_key is not None, "never altered"


def test_decoded_frames_are_kept_as_far_as_memory_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "f", ["a", "b"], normals=True)
    reads: list[str] = []
    read = plain_folder.read_depth
    monkeypatch.setattr(
        plain_folder, "read_depth", lambda path: reads.append(path.stem) or read(path)
    )
    samples = {}
    for cache_gb in (0.0, 1.0):
        source = open_source(config(root, augment=True, cache_gb=cache_gb), SIZE, "train")
        reads.clear()
        samples[cache_gb] = [source.sample(0, np.random.default_rng(3)) for _ in range(3)]
        assert len(reads) == (1 if cache_gb else 3)
    for kept, fresh in zip(samples[1.0], samples[0.0], strict=True):
        assert torch.equal(kept.image, fresh.image)
        assert kept.depth is not None
        assert fresh.depth is not None
        assert torch.equal(kept.depth, fresh.depth)
    with pytest.raises(DataError, match="cache_gb must be 0 to 1,000,000"):
        config(root, cache_gb=-1.0)


def test_kept_frames_are_those_of_the_dataset_that_asks(tmp_path: Path) -> None:
    """One folder twice: labels may be kept halved where normals are not derived from them."""
    root = folder(tmp_path / "f", ["a"])
    camera = {"width": WIDTH, "height": HEIGHT, "fx": 15, "fy": 15, "cx": 7.5, "cy": 5.5}
    (root / "intrinsics.json").write_text(json.dumps(camera))
    plain, derived = (DatasetConfig("folder", str(root), 1.0, derive) for derive in (False, True))
    alone = open_source(config(datasets=(derived,), augment=True), SIZE, "train")
    both = open_source(config(datasets=(plain, derived), augment=True), SIZE, "train")
    both.sample(0, np.random.default_rng(0))
    expected, found = (
        source.sample(index, np.random.default_rng(3)) for source, index in ((alone, 0), (both, 1))
    )
    assert expected.depth is not None
    assert found.depth is not None
    assert torch.equal(expected.depth, found.depth)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: root / "nowhere", "no such folder"),
        (lambda root: root, "no pictures in it"),
        (
            lambda root: (folder(root, ["a"]) / "depth" / "a.png").unlink() or root,
            "pictures but no depth/ and no normals/",
        ),
        (
            lambda root: (folder(root, ["a"]) / "intrinsics.json").write_text("[1") and root,
            "not intrinsics",
        ),
    ],
)
def test_an_unusable_folder_is_one_line(tmp_path: Path, make: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as raised:
        open_source(config(make(tmp_path)), SIZE, "train")
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------- official layout


def official(root: Path, names: list[str]) -> Path:
    """Frames as the official code lays them out; depth 1 m to 70 m along the columns."""
    h5py = pytest.importorskip("h5py", reason="the optional package h5py is not installed")
    for kind in ("rgb", "depth", "depth_ori", "normal"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    metres = np.tile(np.linspace(1, 70, WIDTH).astype(np.float32), (HEIGHT, 1))
    unit = np.repeat(np.clip((metres - 3) / 60, 0, 1)[..., None], 3, axis=2)
    normals = np.tile(np.float32((0.6, 0.8, 0)), (HEIGHT, WIDTH, 1))
    normals[0] = 0
    for name in names:
        suffix = "png" if name.startswith("ai") else "jpg"
        grey = np.full((2 * HEIGHT, 2 * WIDTH, 3), 128, np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{name}.{suffix}"), grey)
        labels = (("depth_ori", metres), ("depth", unit), ("normal", normals))
        for kind, array in labels:
            with h5py.File(root / kind / f"{name}.h5", "w") as file:
                file["depth"] = array
        (root / f"{name}.json").write_text(json.dumps({"caption": f"a picture of {name}"}))
    return root


def test_the_official_layout_by_hand(tmp_path: Path) -> None:
    root = official(tmp_path / "o", ["ai_001", "Scene01_2", "coco_3"])
    for kind, name, limit in (
        ("hypersim", "ai_001", 65),
        ("virtual_kitti", "Scene01_2", 80),
        ("coco", "coco_3", 80),
    ):
        source = open_source(config(root, kind=kind), SIZE, "train")
        assert len(source) == 1
        sample = source.sample(0, None)
        assert sample.name == name
        assert sample.caption == f"a picture of {name}"
        assert sample.depth is not None
        assert sample.depth_target is not None
        assert sample.normals is not None
        metres = np.linspace(1, 70, WIDTH)
        np.testing.assert_allclose(sample.depth[4], np.where(metres < limit, metres, 0), rtol=1e-6)
        stored = np.clip((metres - 3) / 60, 0, 1) * 2 - 1
        np.testing.assert_allclose(sample.depth_target[4], stored, atol=1e-5)
        less = open_source(config(root, kind=kind, depth_share=0.5), SIZE, "train").sample(0, None)
        assert less.depth_target is not None
        np.testing.assert_allclose(less.depth_target[4], stored / 2, atol=1e-5)
        # x right, y up, towards the viewer -> x right, y down, forward.
        np.testing.assert_allclose(sample.normals[:, 5, 5], [0.6, -0.8, 0], atol=1e-6)
        assert not sample.normals[:, 0].any()


def test_official_frames_with_faults_are_left_out(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the optional package h5py is not installed")
    names = [f"ai_{i}" for i in range(7)]
    root = official(tmp_path / "o", names)
    cut = root / "depth_ori" / "ai_0.h5"
    cut.write_bytes(cut.read_bytes()[:700])
    (root / "ai_1.json").write_text("{}")
    (root / "depth_ori" / "ai_2.h5").unlink()
    with h5py.File(root / "depth_ori" / "ai_3.h5", "w") as file:
        file["depth"] = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    with h5py.File(root / "depth" / "ai_4.h5", "w") as file:
        file["depth"] = np.full((HEIGHT, WIDTH, 3), 7.0, np.float32)
    with h5py.File(root / "depth_ori" / "ai_5.h5", "w") as file:
        file["depth"] = np.ones((HEIGHT, WIDTH * 2), np.float32)
    source = open_source(config(root, kind="hypersim"), SIZE, "train")
    assert [source.sample(i, None).name for i in range(len(source))] == ["ai_6"]
    for part in (
        "6 of 7 left out",
        "3 x cannot be read (ai_0, ai_1, ai_4)",
        "1 x no depth (ai_2)",
        "1 x nothing known (ai_3)",
        "1 x another shape (ai_5)",
    ):
        assert part in source.summary[0]
    with pytest.raises(DataError, match="names begin with 'Scene'"):
        open_source(config(root, kind="virtual_kitti"), SIZE, "train")


def test_what_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions and network disks are mended without a trace in size or time of the file."""
    root = official(tmp_path / "o", ["ai_0", "ai_1"])
    whole = frame_check._examine

    def refused(reader: Any, name: str) -> dict[str, Any]:
        if name == "ai_0":
            return {"fault": [frame_check.DAMAGED, "ai_0: Permission denied"]}
        return whole(reader, name)

    monkeypatch.setattr(frame_check, "_examine", refused)
    source = open_source(config(root, kind="hypersim"), SIZE, "train")
    assert "1 of 2 left out" in source.summary[0]
    monkeypatch.setattr(frame_check, "_examine", whole)
    source = open_source(config(root, kind="hypersim"), SIZE, "train")
    assert not any("left out" in line for line in source.summary)


def test_without_h5py_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = official(tmp_path / "o", ["ai_0"])
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(D3Error, match="pip install h5py"):
        open_source(config(root, kind="hypersim"), SIZE, "train")


def test_official_frames_can_be_augmented(tmp_path: Path) -> None:
    root = official(tmp_path / "o", ["coco_3"])
    source = open_source(config(root, kind="coco", augment=True), SIZE, "train")
    sample = source.sample(0, np.random.default_rng(1))
    assert sample.depth is not None
    assert sample.depth.shape == SIZE
    assert sample.image.shape == (3, *SIZE)


# ----------------------------------------------------------------------------------------- mixing


class Numbers:
    """A dataset of nothing but its length."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.summary = (f"{length} numbers",)

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: object) -> tuple[int, int]:
        return self.length, index


def test_sets_are_mixed_by_weight_and_every_frame_comes_before_one_comes_again() -> None:
    source = MixedSource([Numbers(50), Numbers(7), Numbers(11)], [0.76, 0.12, 0.12])
    assert len(source) == 68
    assert source.sample(0, None) == (50, 0)
    assert source.sample(56, None) == (7, 6)
    assert source.sample(57, None) == (11, 0)
    plans = [source.plan(5, batch, 4) for batch in range(2000)]
    owners = [{source.sample(i, None)[0] for i in plan} for plan in plans]
    assert all(len(owner) == 1 for owner in owners), "a batch is of one set"
    counts = Counter(owner.pop() for owner in owners)
    # The chance that one of these is off by more than 4 standard deviations is 1e-4.
    for length, weight in ((50, 0.76), (7, 0.12), (11, 0.12)):
        assert abs(counts[length] - 2000 * weight) < 4 * np.sqrt(2000 * weight * (1 - weight))
    walked = [source.sample(i, None)[1] for plan in plans for i in plan if 50 <= i < 57]
    for start in range(0, 70, 7):
        assert sorted(walked[start : start + 7]) == list(range(7))
    assert walked[:7] != walked[7:14], "in a new order each time"


def test_a_plan_is_a_function_of_its_arguments() -> None:
    sets = ([Numbers(50), Numbers(7)], [1.0, 1.0])
    later = MixedSource(*sets).plan(3, 40, 8)
    source = MixedSource(*sets)
    for batch in range(40):
        source.plan(3, batch, 8)
    assert source.plan(3, 40, 8) == later
    assert source.plan(4, 40, 8) != later
    # Two processes that take every second place of the batch see the batch of one process.
    assert sorted(later[0::2] + later[1::2]) == sorted(later)


def test_empty_sets_take_no_part() -> None:
    source = MixedSource([Numbers(0), Numbers(3)], [100.0, 1.0])
    assert {i for batch in range(20) for i in source.plan(0, batch, 2)} == {0, 1, 2}
    with pytest.raises(ValueError, match="no batches"):
        MixedSource([Numbers(0)], [1.0]).plan(0, 0, 1)


def test_configuration_is_checked() -> None:
    with pytest.raises(DataError, match="weight of x must be positive"):
        DatasetConfig("folder", "x", 0.0, False)
    with pytest.raises(DataError, match="at least one dataset"):
        DataConfig((), False, 0.1, False)


def test_real_frames(test_data: Path) -> None:
    """All 45 table-tops are usable; about 60 % of their pixels are measured."""
    source = open_source(config(test_data / "osd", strict=True), (120, 160), "train")
    assert len(source) == 45
    batch = collate([source.sample(i, None) for i in source.plan(0, 0, 8)])
    assert batch.depth is not None
    assert batch.depth.shape == (8, 480, 640)
    known = batch.depth > 0
    assert 0.3 < known.float().mean() < 0.95
    assert 0.4 < batch.depth[known].min() < batch.depth[known].max() < 2.0


def test_split_files_are_read_as_written(tmp_path: Path) -> None:
    sides = {"a b": "train", "c": "test"}
    plain_folder.write_split(tmp_path, sides)
    assert plain_folder.read_split(tmp_path) == sides

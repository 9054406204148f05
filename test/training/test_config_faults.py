"""Broken and hostile configurations: each is one line, none hangs or takes memory without bound."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.training_configs import CONFIGS, NANO
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3_ros.__main__ import main
from d3_ros.errors import DataError
from d3_ros.training.config.codec_config import load_codec_config
from d3_ros.training.config.train_config import TrainConfig, load_config
from d3_ros.training.config.yaml_config import MAX_BYTES, MAX_FILES, build, read_yaml

BOMB = b"a: &a {x: 1, y: 2}\n" + b"".join(
    f"{b}: &{b}\n  <<: [{', '.join(f'*{a}' for _ in range(9))}]\n  k{b}: 1\n".encode()
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
COPIES = b"a: &a {" + b", ".join(b"k%d: 1" % i for i in range(1001)) + b"}\nb: {<<: *a}"
BROKEN_FILES: dict[str, tuple[bytes, str]] = {
    "latin-1": ("name: Küche".encode("latin-1"), "is not UTF-8 text"),
    "a date that does not exist": (b"seed: 2020-13-45", "is not YAML: month must be in"),
    "a number of 5,000 digits": (b"seed: " + b"9" * 5000, "is not YAML: Exceeds the limit"),
    "a hexadecimal number of 5,000 digits": (b"seed: 0x" + b"f" * 5000, "'name' is missing"),
    "a key of 5,000 digits": (b"? 0x" + b"f" * 5000 + b"\n: 1", "unknown key this int"),
    "a number without digits": (b"seed: 0x_", "is not YAML"),
    "a NUL in a text": (b'name: "a\\0b"', "name must be one line of text"),
    "a NUL in the file": (b"name: a\0b", "is not YAML"),
    "a NUL in inherits": (b'inherits: "a\\0b.yaml"', "inherits must be the name of a file"),
    "a number in inherits": (b"inherits: 3", "inherits must be the name of a file"),
    "a folder in inherits": (b"inherits: /", "inherits /: there is no such file"),
    "a device in inherits": (b"inherits: /dev/zero", "inherits /dev/zero: there is no such file"),
    "a name of 10,000 characters in inherits": (
        b"inherits: " + b"x" * 10000,
        "inherits [Errno 36] File name too long",
    ),
    "the home of nobody in inherits": (b'inherits: "~nobody_/c.yaml"', "there is no such file"),
    "brackets without end": (b"[" * 5000, "is not YAML"),
    "an alias to itself": (b"name: &a [*a]", "name must be str, not this list"),
    "copies that multiply": (BOMB, ""),  # refused by us, or taken once by PyYAML 6.0.4
    "too many copies": (COPIES, "is not YAML: too many merged keys"),
    "a tag that runs code": (b"seed: !!python/object/apply:os.getcwd []", "is not YAML"),
    "a tag whose value does not fit": (b"seed: !!bool perhaps", "is not YAML"),
    "a date by tag": (b"seed: !!timestamp tomorrow", "is not YAML"),
    "a list as a key": (b"? [1]\n: 2", "is not YAML"),
    "nothing": (b"", "must be a mapping"),
    "a file without end": (b"# " + b"x" * MAX_BYTES, "is larger than"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_a_broken_file_is_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = BROKEN_FILES[name]
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    assert main(["train", "--config", str(path), f"output={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert str(path) in error
    assert message in error
    assert len(error) < 1000
    assert not (tmp_path / "run").exists()


def test_many_files_that_inherit_from_each_other(tmp_path: Path) -> None:
    for i in range(1200):
        (tmp_path / f"{i}.yaml").write_text(f"inherits: {i + 1}.yaml\n")
    with pytest.raises(DataError, match=f"more than {MAX_FILES} files inherit from each other"):
        load_config(tmp_path / "0.yaml")
    last = MAX_FILES - 1
    (tmp_path / f"{last}.yaml").write_text("inherits: train_depth.yaml\nseed: 5\n")
    with pytest.raises(DataError, match="more than"):
        load_config(tmp_path / "0.yaml")
    # One file less is the most; the last one inherits from a recipe of the package.
    assert load_config(tmp_path / "1.yaml").seed == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.learning_rate=.nan",
            "optimizer.learning_rate must be a finite number, not nan",
        ),
        ("optimizer.learning_rate=-1e-3", "optimizer.learning_rate must be 0 to 1"),
        ("optimizer.betas=[2, 2]", r"optimizer.betas\[0\] must be 0 to 0.999999, not 2"),
        ("optimizer.betas=[0.9]", "optimizer.betas must have 2 entries"),
        ("optimizer.clip_norm=0", "optimizer.clip_norm must be 1e-09 to"),
        ("optimizer.warmup_steps=-1", "optimizer.warmup_steps must be 0 to"),
        ("workers=-5", "workers must be 0 to 256, not -5"),
        ("workers=1000000000", "workers must be 0 to 256"),
        ("threads=-1", "threads must be 0 to 1,024"),
        ("seed=-1", "seed must be 0 to"),
        ("losses.mse=.inf", "losses.mse must be a finite number, not inf"),
        ("losses.mse=-1", "losses.mse must be 0 to 1,000,000"),
        ("ema.decay=1.0", "ema.decay must be 0 to 0.999999"),
        ("ema.every=0", "ema.every must be 1 to"),
        ("micro_batch=0", "micro_batch must be 1 to"),
        ("data.cache_gb=.nan", "data.cache_gb must be a finite number"),
        ("data.cache_gb=1e308", "data.cache_gb must be 0 to 1,000,000"),
        ("data.depth_share=0", "data.depth_share must be above 0 and at most 1, not 0"),
        ("data.depth_share=1.5", "data.depth_share must be above 0 and at most 1, not 1.5"),
        ("data.datasets=[{kind: folder, path: x, weight: 1e308}]", "weight of x must be"),
        ("stages=[{size: [0, 96], batch: 16, steps: 1}]", r"stages\[0\].size\[0\] must be 1 to"),
        ("stages=[{size: [96, 10000000], batch: 16, steps: 1}]", r"size\[1\] must be 1 to 16,384"),
        ("model.new.unet_channels=[48, 96]", "must have the same number of entries"),
        ("model.new.norm_groups=5", "48 is not a multiple of norm_groups 5"),
        ("model.new.vae_blocks=[0, 0, 100000]", r"vae_blocks\[2\] must be 0 to 64"),
        ("model.new.latent_channels=4611686018427387904", "latent_channels must be 1 to 16,384"),
        ("model={new: null, start: x, train_vae: false, teacher: y}", "a teacher needs adapters"),
        ("seed=2020-13-45", "'seed=2020-13-45' is not YAML"),
        ("seed=[[" + "[" * 5000, "is not YAML"),
    ],
)
def test_values_out_of_range(override: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as failure:
        load_config(NANO, [override])
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) < 1000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rate=.nan", "learning_rate must be a finite number"),
        ("ema_decay=1", "ema_decay must be 0 to 0.999999"),
        ("smallest_crop=0", "smallest_crop must be 0.01 to 1"),
        ("steps=0", "steps must be 1 to"),
        ("encoder_blocks=[]", "encoder_blocks must be a list with at least one entry"),
        ("decoder_blocks=[1, 10000000]", r"decoder_blocks\[1\] must be 0 to 64"),
    ],
)
def test_values_of_the_codec_out_of_range(override: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_codec_config(CONFIGS / "train_codec.yaml", [override])


# --- Fuzzing: whatever comes in, a checked configuration or one line comes out

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1e-3", ".nan", "nan", "inf", "\0", "\ud800", "a\nb", "x" * 5000]),
    st.dates(),
    st.binary(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
RECIPES = [yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("nano_0[1-3]*.yaml"))]
RECIPES += [yaml.safe_load((CONFIGS / "train_depth.yaml").read_text())]


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to each value."""
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


PLACES = places(RECIPES)
PLACES = [place for place in PLACES if len(place) > 1]


def numbers(config: Any) -> list[float]:
    """All numbers in a configuration."""
    if dataclasses.is_dataclass(config):
        return numbers(list(vars(config).values()))
    if isinstance(config, (list, tuple)):
        return [number for value in config for number in numbers(value)]
    return [config] if isinstance(config, (int, float)) else []


@contextlib.contextmanager
def one_line_at_most() -> Any:
    try:
        yield
    except DataError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 1000


@settings(max_examples=1200, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_in_any_place(place: tuple[Any, ...], value: Any) -> None:
    number, *way, key = place
    content = owner = copy.deepcopy(RECIPES[number])
    for step in way:
        owner = owner[step]
    owner[key] = value
    with one_line_at_most():
        config = build(TrainConfig, content, "c.yaml")
        assert all(math.isfinite(number) for number in numbers(config))
        assert config.steps >= 1
        assert all(0 <= beta < 1 for beta in config.optimizer.betas)


PIECES = st.sampled_from(
    b"inherits: |train_depth.yaml|seed: |- |{|}|[|]|: |\n|&a |*a|<<: |!!|!!int |!!float |!!omap |"
    b"? |!!timestamp |!!set |2020-13-45|0x_|1:99|'|\"|\\x|>|%YAML 9.9|---|\xff|\xef\xbb\xbf|\0|=|~|"
    b"#|@|\t|  |2001-01-01 99:00:00|1_".split(b"|")
)


@settings(
    max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PIECES | st.binary(max_size=4), max_size=12))
def test_any_bytes_in_a_file(tmp_path: Path, pieces: list[bytes]) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"".join(pieces))
    with one_line_at_most():
        read_yaml(path)


@settings(max_examples=800, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=4) | st.just(b"."), max_size=8))
def test_any_override(pieces: list[bytes]) -> None:
    text = b"".join(pieces).decode("utf-8", errors="surrogateescape")
    with one_line_at_most():
        build(TrainConfig, {**RECIPES[0], **read_yaml(Path("train_depth.yaml"), [text])}, "c.yaml")

"""Everything that parses input, on damaged input: an answer or one line, nothing else.

`scripts/fuzz.py` runs the same targets for as long as one likes; what broke something is a test in
the folder of the parser.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.fuzz_targets import TARGETS, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3_ros.imaging.image_file import PictureError, decode_picture

SLOW = {"bag_mcap", "bag_db3", "bag_bag"}


@pytest.mark.parametrize("name", TARGETS)
def test_valid_input_is_read(name: str, tmp_path: Path) -> None:
    """Else damaged input would not get far."""
    for data in TARGETS[name].seeds():
        TARGETS[name].run(data, tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_an_answer_or_one_line(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    seeds = target.seeds()

    @given(st.sampled_from(seeds), st.sampled_from(seeds), st.integers(0, 2**32))
    @settings(
        max_examples=60 if name in SLOW else 400,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(one: bytes, other: bytes, seed: int) -> None:
        target.run(mutated(one, other, np.random.default_rng(seed)), tmp_path)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_an_answer_or_one_line(name: str, tmp_path: Path) -> None:
    @given(st.binary(max_size=400))
    @settings(
        max_examples=30 if name in SLOW else 100,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def run(data: bytes) -> None:
        TARGETS[name].run(data, tmp_path)

    run()


def test_megabytes_without_an_end_are_read_once() -> None:
    """A parser that went over its input again for every marker would take hours here."""
    jpeg, png = b"\xff\xd8\xff\xe0\0\x02", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + bytes(17)
    for data in (
        jpeg + b"\xff" * 8_000_000,
        jpeg + b"\xff\xc4\0\x02" * 2_000_000,
        jpeg + b"\xff\0" * 4_000_000,
        png + (bytes(4) + b"IDAT" + bytes(4)) * 600_000,
    ):
        with pytest.raises(PictureError, match="damaged or cut short"):
            decode_picture(data, cv2.IMREAD_COLOR)

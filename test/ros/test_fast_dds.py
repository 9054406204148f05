"""Messages that are larger than Fast DDS's shared memory are told once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Empty

from d3_ros.ros import fast_dds
from d3_ros.ros.fast_dds import DEFAULT_SEGMENT_BYTES, LargeMessageCheck

pytestmark = pytest.mark.ros

FAST_DDS, CYCLONE = "rmw_fastrtps_cpp", "rmw_cyclonedds_cpp"
LARGE = Image(data=bytes(DEFAULT_SEGMENT_BYTES + 1))


@pytest.fixture(autouse=True)
def nothing_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*fast_dds.PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def lines_of(middleware: str, *messages: object) -> list[str]:
    lines: list[str] = []
    check = LargeMessageCheck(middleware, Path("/share/fastdds.xml"), lines.append)
    for message in messages:
        check.check("/predictor/points", message)
    return lines


def test_a_message_that_does_not_fit_is_told_once() -> None:
    assert lines_of(FAST_DDS, Empty(), Image(data=bytes(DEFAULT_SEGMENT_BYTES))) == []
    (line,) = lines_of(FAST_DDS, LARGE, LARGE)
    assert line.startswith("'/predictor/points' has 0.5 MB")
    assert "Set FASTRTPS_DEFAULT_PROFILES_FILE (Kilted and newer: FASTDDS_" in line
    assert "to /share/fastdds.xml in all processes" in line


def test_other_middleware_and_own_profiles_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(CYCLONE, LARGE) == []
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "LARGE_DATA")
    assert lines_of(FAST_DDS, LARGE) == []


def test_without_room_for_the_profile_it_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_dds, "has_shared_memory", lambda: False)
    assert fast_dds.profile_variables(Path("/share/fastdds.xml"), {}) == {}
    assert "needs 160 MB of /dev/shm" in lines_of(FAST_DDS, LARGE)[0]

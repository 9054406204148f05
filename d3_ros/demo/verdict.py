"""What a run of the demo means, in words: the verdict, and what to try next."""

from __future__ import annotations

from typing import Any

# Two mean errors that differ by less than this share are called equal.
SAME = 0.05


def played(report: dict[str, Any]) -> str:
    """How many frames of the source were played, and how often."""
    frames, sent = report["source_frames"], report["sent"]
    if sent > frames > 0:
        return f"{frames} frames, each played {sent / frames:.3g} times"
    return f"{frames} frames" if sent == frames else f"The first {sent} of {frames} frames"


def what_was_run(report: dict[str, Any]) -> str:
    """The input, and how it was played."""
    text = (
        f"{played(report)} ({report['sent']} images), published as a camera to the node "
        f"d3_ros/predictor with the model {report['model']} on {report['device']}. Results came "
        "back over DDS to another process."
    )
    if report["given_points"]:
        text += (
            f" The node was given {report['given_points']} measured points per frame as sparse "
            "depth."
        )
    if report["abs_rel"] is not None and report["given_points"]:
        text += " The other measured pixels, which it never saw, are the truth below."
    return text


def verdict(report: dict[str, Any]) -> tuple[str, list[str]]:
    """Headline and sentences."""
    if not report["frames"]:
        return "No depth came back.", [f"The log of the node says why: {report['log']}."]
    sentences = [_speed(report)]
    if report["depth_topic"] != "depth/image":
        sentences.append(f"No metric depth: {report['abs_rel_note']}.")
        return "Relative depth only: near and far, but no metres.", sentences
    if report["abs_rel"] is None:
        sentences.append(f"There is no error to show: {report['abs_rel_note']}.")
        return "Metric depth came back; nothing to compare it with.", sentences
    percent = 100 * report["abs_rel"]
    headline = f"Depth is off by {percent:.2g} % of the distance on average."
    sentences.insert(
        0,
        f"At 2 m that is {20 * percent:.0f} mm. {100 * report['delta1']:.0f} % of the pixels are "
        f"off by less than 25 %. Scored on {report['abs_rel_note']}.",
    )
    if (alone := report["points_alone"]) is not None:
        sentences.insert(1, _against_points(alone))
    return headline, sentences


def next_steps(report: dict[str, Any]) -> list[str]:
    """What to try next, one sentence each, the most useful first."""
    steps = []
    if report["abs_rel"] is None:
        steps.append(
            "Give it measured depth, so that there is scale and a score: a folder with depth/ "
            "beside rgb/, or a bag with a registered depth image."
        )
    alone = report["points_alone"]
    if alone is not None and alone["d3_abs_rel"] > (1 - SAME) * alone["abs_rel"]:
        steps.append(
            "Fewer points (--points 50): the network matters most where the sensor measures little."
        )
    if report["model"] == "d3_nano":
        steps.append(
            "A larger model, for a GPU: python -m d3_ros download prints the convert command that "
            "makes d3_sd21; then --model d3_sd21. The bundled d3_nano is small and was trained on "
            "rendered images."
        )
    steps += [
        "Your own recording: --input BAG, or a folder with rgb/ and depth/.",
        "Adapt the model to your robot: python -m d3_ros finetune --bag BAG --model d3_nano "
        "--output models/mine, see docs/finetuning.md.",
        "On the robot: ros2 launch d3_ros predictor.launch.py, see docs/field-guide.md.",
    ]
    return steps


def _speed(report: dict[str, Any]) -> str:
    text = f"{report['frames']} of {report['sent']} images were answered"
    if report["depth_hz"] is not None:
        text += f", {report['depth_hz']:.2g} per second"
    if report["latency_ms"] is not None:
        text += f"; depth arrived {report['latency_ms']['p50']:.0f} ms after its image (median)"
    return f"{text}, on {report['hardware']}."


def _against_points(alone: dict[str, Any]) -> str:
    """The network beside the interpolation of the same points."""
    mine, theirs = alone["d3_abs_rel"], alone["abs_rel"]
    figures = f"{100 * theirs:.2g} % against {100 * mine:.2g} %"
    if mine < (1 - SAME) * theirs:
        return (
            f"Interpolating the same points without a network has a larger error ({figures} on the "
            "same pixels)."
        )
    if mine > (1 + SAME) * theirs:
        return (
            f"Interpolating the same points without a network has a smaller error ({figures} on "
            "the same pixels): here the points alone are enough."
        )
    return (
        f"Interpolating the same points without a network has about the same error ({figures} on "
        "the same pixels)."
    )

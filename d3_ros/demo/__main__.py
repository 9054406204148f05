"""Play camera frames to a d3_ros node over DDS, record what it answers, and show it.

Three processes: the node, a player that publishes the input as a camera, and a recorder. Results go
to demo_out/: pictures, cloud.ply, report.json and index.html.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from d3_ros.demo.arguments import add_source_arguments, pace, source_options, whole_number
from d3_ros.demo.run import DemoOptions, run
from d3_ros.errors import D3Error

SAMPLE = Path(__file__).resolve().parents[2] / "test" / "data" / "sample_walk"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 is success, 1 a failure told in one line, 130 an interruption."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input",
        type=Path,
        default=SAMPLE,
        metavar="PATH",
        help="a ROS 2 bag, a video, or a folder with rgb/ and perhaps depth/ (uint16 millimetres, "
        "0 = none; same stems); default: the sample, a rendered walk",
    )
    add_source_arguments(parser)
    parser.add_argument("--model", default="d3_nano", help="bundle, by name or path (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("demo_out"), help="(%(default)s)")
    parser.add_argument(
        "--rate",
        type=pace,
        help="source: the input's own times, frames that come too fast are dropped by the node; "
        "auto: the next frame when the last is answered; or Hz "
        "(default: source, auto for a folder)",
    )
    parser.add_argument(
        "--frames",
        type=whole_number,
        default=0,
        help="how many to send (default: all, at least 40, at most 600)",
    )
    parser.add_argument(
        "--pictures", type=whole_number, default=6, help="of how many frames (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=900.0, metavar="S", help="for all (default: %(default)s)"
    )
    parser.add_argument("--view", action="store_true", help="open rviz2 on the node's topics")
    args = parser.parse_args(argv)
    # A terminated demo must end its children as an interrupted one does.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        run(
            DemoOptions(
                source=source_options(args.input, args),
                output=args.output,
                model=args.model,
                device=args.device,
                rate=args.rate,
                frames=args.frames,
                pictures=args.pictures,
                timeout_s=args.timeout,
                view=args.view,
            )
        )
    except D3Error as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

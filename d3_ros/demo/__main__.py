"""Play camera frames to a d3_ros node over DDS, record its outputs, and show them as a page.

The demo runs three processes: the node, a player that publishes the input as a camera, and a
recorder. It writes index.html, report.json, cloud.ply and pictures into the output folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from d3_ros.errors import D3Error, missing_package

try:
    from d3_ros.demo.arguments import add_source_arguments, pace, source_options, whole_number
    from d3_ros.demo.run import DemoOptions, run
except ModuleNotFoundError as missing:
    sys.exit(f"demo: {missing_package(missing)}")

SAMPLE = Path(__file__).resolve().parents[2] / "test" / "data" / "sample_walk"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 is success, 1 a failure told in one line, 130 an interruption."""
    args = _parser().parse_args(argv)
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
    except OSError as error:
        print(f"demo: {error.filename or args.output}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
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
        help="a ROS bag, a video, or a folder with rgb/NAME.* and optionally depth/NAME.png "
        "(uint16 millimetres, 0 = not measured); default: the sample, a rendered walk",
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--model", default="d3_nano", help="model bundle, name or folder (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo_out"),
        help="folder for the results; only files of an earlier demo are replaced (%(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=pace,
        help="pace of the images. source: the times of the input; the node drops images that come "
        "too fast. auto: each image when the one before is answered. Or a number, Hz. "
        "(default: source; auto for a folder)",
    )
    parser.add_argument(
        "--frames",
        type=whole_number,
        default=0,
        help="how many images to send (default: all frames, repeated up to 40 images, at most 600)",
    )
    parser.add_argument(
        "--pictures",
        type=whole_number,
        default=6,
        help="how many frames to show (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=900.0,
        metavar="S",
        help="seconds until the demo gives up (default: %(default)s)",
    )
    parser.add_argument("--view", action="store_true", help="open rviz2 on the node's topics")
    return parser


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

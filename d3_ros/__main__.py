"""The command line: `python -m d3_ros COMMAND`. Each command is a module of d3_ros.commands.

A command module has `add_arguments(parser)` and `run(args) -> int`. It is imported only if its
command is asked for: `--help` answers at once, and `predict` needs no training packages.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from d3_ros.errors import D3Error, missing_package

COMMANDS = {
    "predict": "depth, normals and a point cloud for image files",
    "convert": "make a model bundle from the official D³-Predictor checkpoints",
    "download": "fetch the official checkpoints and their Stable Diffusion 2.1 base",
    "export": "write ONNX graphs into a bundle, to run without PyTorch",
    "evaluate": "score a bundle on a folder of frames with measured depth",
    "train": "train a bundle",
    "finetune": "fine-tune a bundle to a robot's own domain, from its bag",
    "bag": "look into a ROS 2 bag, or make training data of it",
    "render": "make synthetic frames with exact depth and normals",
    "bench": "measure speed",
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to an option's text, where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default == []
        return action.help if nothing else super()._get_help_string(action)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0 is success, 1 a failure told in one line on standard error, 2 a wrong command line,
    130 an interruption.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = " ".join(["d3_ros", *arguments[:1]])
    try:
        args = parsed_arguments(arguments)
        return int(args.run(args))
    except D3Error as error:
        print(f"{name}: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"{name}: {missing_package(error)}", file=sys.stderr)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {where}{error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 1


def parsed_arguments(arguments: list[str]) -> argparse.Namespace:
    """The arguments; `run` is the function of the command.

    Raises:
        SystemExit: they are wrong, or ask for help; argparse has printed what there is to say.
    """
    parser = argparse.ArgumentParser(
        prog="d3_ros",
        description="Depth, surface normals and metric point clouds with D³-Predictor.",
        epilog="'d3_ros COMMAND --help' tells more. The ROS node: ros2 launch d3_ros "
        "predictor.launch.py",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, formatter_class=HelpFormatter)
        if arguments[:1] == [name]:
            module = importlib.import_module(f"d3_ros.commands.{name}")
            subparser.description = module.__doc__
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

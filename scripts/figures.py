"""Run the commands that the pages show, and write what they print, or draw, into the pages.

    .venv/bin/python scripts/figures.py            # all pages; or name some: docs/data.md
    .venv/bin/python scripts/figures.py --list     # the commands only

A page says what belongs to it by comments that are not shown. One before a block of text:

    <!-- figures: run -->

runs every line of the block that begins with "$ " (with its continued lines) and replaces the lines
below it by what it printed. And one for a picture:

    <!-- figures: COMMAND => FILE => PICTURE -->

runs COMMAND and copies FILE, which the command made, to PICTURE, a path in the repository.

The commands of a page run one after the other in one temporary folder, with `test`, `models` and
`shared` (of the folder above the repository) at hand and `python` as this Python. A command that
fails ends the script, and its page stays as it was. Figures of the network change with the model.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "models/README.md", "docs/*.md")
BLOCK = re.compile(r"(<!-- figures: run -->\n```\w*\n)(.*?)(^```$)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"<!-- figures: (?!run)(.+?) => (\S+) => (\S+) -->")


def transcript(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each as written with its continued lines, and what stands below."""
    parts: list[tuple[str, str]] = []
    continued = False
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            parts.append((line, ""))
        elif parts and continued:
            parts[-1] = (parts[-1][0] + line, "")
        elif parts:
            parts[-1] = (parts[-1][0], parts[-1][1] + line)
        continued = line.rstrip().endswith("\\") and bool(parts) and not parts[-1][1]
    return parts


def run(command: str, folder: Path) -> str:
    """What a shell command prints on standard output.

    Raises:
        SystemExit: it failed.
    """
    bin_folder = folder / ".bin"
    bin_folder.mkdir(exist_ok=True)
    python = bin_folder / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    print(f"$ {command}", flush=True)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, text=True, capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"figures: this command ended with {done.returncode}:\n{done.stderr}")
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def rewritten(block: str, folder: Path) -> str:
    """A block with what its commands print now; an empty line stays between two commands."""
    texts = []
    for command, _ in transcript(block):
        texts.append(command + run(command.removeprefix("$ ").strip(), folder).strip("\n") + "\n")
    return "\n".join(texts)


def refresh(page: Path, folder: Path) -> None:
    """Run a page's commands in `folder` and write the page and its pictures."""
    for name, target in (("test", ROOT), ("models", ROOT), ("shared", ROOT.parent)):
        (folder / name).symlink_to(target / name)
    text = page.read_text(encoding="utf-8")
    for command, made, picture in PICTURE.findall(text):
        run(command, folder)
        shutil.copyfile(folder / made, ROOT / picture)
    new = BLOCK.sub(lambda m: m[1] + rewritten(m[2], folder) + m[3], text)
    if new != text:
        page.write_text(new, encoding="utf-8")
        print(f"{page}: written anew; read it before you commit it")


def commands(page: Path) -> list[str]:
    """The commands of a page, as they are written."""
    text = page.read_text(encoding="utf-8")
    found = [command for command, _, _ in PICTURE.findall(text)]
    for block in BLOCK.findall(text):
        found += [command.removeprefix("$ ").strip() for command, _ in transcript(block[1])]
    return found


def main(argv: list[str] | None = None) -> int:
    """Refresh the pages that are named, or all that have marked blocks."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="Marks are explained at the head of this script.",
    )
    parser.add_argument("pages", nargs="*", type=Path, help="default: all with marks")
    parser.add_argument("--list", action="store_true", help="print the commands, run none")
    args = parser.parse_args(argv)
    pages = args.pages or [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    for page in pages:
        listed = commands(page)
        if args.list:
            print("".join(f"{page}: {command}\n" for command in listed), end="")
        elif listed:
            with tempfile.TemporaryDirectory() as folder:
                refresh(page, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())

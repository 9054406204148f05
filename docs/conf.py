"""How Sphinx builds these pages into a site: `scripts/docs`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from d3_ros import __version__  # noqa: E402

project = "d3_ros"
author = "d3_ros maintainers"
copyright = "d3_ros maintainers, Apache-2.0"  # noqa: A001
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"d3_ros {__version__}"

# The pages are read on a code host too, so they are plain Markdown.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["dollarmath"]

# The API pages come from docstrings; what they import need not be installed to build them.
autodoc_mock_imports = ["cv2", "diffusers", "onnxruntime", "safetensors", "scipy", "torch"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
default_role = "code"

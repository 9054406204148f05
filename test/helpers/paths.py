"""Where tests find the repository's own files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config"
MODELS = ROOT / "models"
SAMPLE_WALK = ROOT / "test" / "data" / "sample_walk"

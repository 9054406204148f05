from d3_ros.network.bundle import Bundle, load_bundle, write_bundle
from d3_ros.network.model import OFFICIAL_NORMAL_AXES, PROMPTS, D3Network, TaskSpec
from d3_ros.network.predictor import D3Predictor

__all__ = [
    "OFFICIAL_NORMAL_AXES",
    "PROMPTS",
    "Bundle",
    "D3Network",
    "D3Predictor",
    "TaskSpec",
    "load_bundle",
    "write_bundle",
]

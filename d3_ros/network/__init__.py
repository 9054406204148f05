from d3_ros.network.bundle import Bundle, load_bundle, write_bundle
from d3_ros.network.model import PROMPTS, D3Network, TaskSpec

__all__ = ["PROMPTS", "Bundle", "D3Network", "TaskSpec", "load_bundle", "write_bundle"]

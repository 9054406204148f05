"""The learning rate over a run."""

from __future__ import annotations

import math

from d3_ros.training.config.train_config import Schedule


def learning_rate_factor(
    schedule: Schedule, step: int, *, steps: int, warmup_steps: int, final_share: float
) -> float:
    """The share of the peak learning rate at `step` (from 0) of `steps`.

    The warm-up is linear and the schedule's descent runs beneath it, down to `final_share`.
    """
    descent = {
        "constant": 1.0,
        "linear": 1 - step / steps,
        "cosine": 0.5 * (1 + math.cos(math.pi * step / steps)),
    }[schedule]
    warm = min(1.0, (step + 1) / max(warmup_steps, 1))
    return warm * (final_share + (1 - final_share) * descent)

"""The learning rate over a run."""

from __future__ import annotations

import math

from d3_ros.training.config.train_config import Schedule


def learning_rate_factor(
    schedule: Schedule, step: int, *, steps: int, warmup_steps: int, final_share: float
) -> float:
    """The share of the peak learning rate at `step` (from 0) of `steps`.

    "constant", "linear" and "cosine" descend to `final_share` over all steps, times a linear
    warm-up. "warmup_decay" is DeepSpeed's WarmupDecayLR, which the official code runs: the warm-up
    is logarithmic, from 0, and the linear descent begins where it ends.
    """
    if schedule == "warmup_decay":
        if step < warmup_steps:
            return math.log(step + 1) / math.log(max(warmup_steps, 2))
        warm, descent = 1.0, (steps - step) / (steps - warmup_steps)
    else:
        warm = min(1.0, (step + 1) / max(warmup_steps, 1))
        descent = {
            "constant": 1.0,
            "linear": 1 - step / steps,
            "cosine": 0.5 * (1 + math.cos(math.pi * step / steps)),
        }[schedule]
    return warm * (final_share + (1 - final_share) * descent)

"""Which steps were bad, and when a run has to stop for them."""

import logging
import math
import statistics
from collections import deque
from typing import Any

from torch import Tensor

from gliomoe.data_shards.errors import DataError
from gliomoe.pretrain.monitoring.monitor import StepReport
from gliomoe.pretrain.sections import HealthConfig

_NORMAL = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution."""
_LEAST = 0.01
"""Least deviation, relative to the median: losses that hardly move have no spikes."""
_NAMED = 10

logger = logging.getLogger(__name__)


class Health:
    """Judges a run step by step; all ranks come to the same verdict.

    Args:
        config: Limits.
        state: What `state` gave when the checkpoint was written that is continued from.
    """

    def __init__(self, config: HealthConfig, state: dict[str, Any] | None = None):
        state = state or {}
        self.config = config
        self._losses = deque(state.get("losses", ()), maxlen=config.spike_window)
        self._bad = state.get("bad", 0)

    def state(self) -> dict[str, Any]:
        """What a run that is continued needs to judge as this one would."""
        return {"losses": list(self._losses), "bad": self._bad}

    def spikes(self, loss: float | Tensor) -> bool:
        """Whether a loss is far above those of the last good steps, once there are enough.

        The limit is the median plus `spike` times the median absolute deviation (scaled to a
        standard deviation), neither of which a few wild losses move.
        """
        full = len(self._losses) == self.config.spike_window
        return bool(self.config.spike) and full and float(loss) > self._limit()

    def judge(self, report: StepReport, keys: tuple[str, ...]) -> None:
        """Count skipped steps in a row.

        Args:
            report: What the step did.
            keys: Studies to look at, if the step was skipped.

        Raises:
            DataError: If there were `bad_steps` of them.
        """
        loss = report.losses["loss"]
        if report.norm is not None:
            self._bad = 0
            self._losses.append(loss)
            return
        self._bad += 1
        what = "loss or gradient not finite"
        if math.isfinite(loss) and self.spikes(loss):
            what = f"loss {loss:.4g} is a spike (limit {self._limit():.4g})"
        studies = ", ".join(keys[:_NAMED])
        if len(keys) > _NAMED:
            studies += f" and {len(keys) - _NAMED} more"
        logger.warning("step %d skipped, %s: %s", report.step, what, studies)
        if self._bad >= self.config.bad_steps:
            raise DataError(
                f"{self._bad} steps in a row were skipped, the last for its {what}, "
                f"with {studies}; look at these studies, or lower optim.lr"
            )

    def _limit(self) -> float:
        """Losses above this are spikes."""
        median = statistics.median(self._losses)
        spread = statistics.median(abs(loss - median) for loss in self._losses)
        return median + self.config.spike * max(_NORMAL * spread, _LEAST * abs(median))

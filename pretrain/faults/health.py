"""Which steps were bad, and when a run has to stop for them."""

import logging

from gliomoe.data_shards.errors import DataError
from gliomoe.pretrain.monitoring.monitor import StepReport
from gliomoe.pretrain.sections import HealthConfig

logger = logging.getLogger(__name__)


class Health:
    """Judges a run step by step; all ranks come to the same verdict."""

    def __init__(self, config: HealthConfig):
        self.config = config
        self._bad = 0

    def judge(self, report: StepReport, keys: tuple[str, ...]) -> None:
        """Count skipped steps in a row.

        Args:
            report: What the step did.
            keys: Studies whose loss was not finite, if the step was skipped.

        Raises:
            DataError: If there were `bad_steps` of them.
        """
        if report.norm is not None:
            self._bad = 0
            return
        self._bad += 1
        studies = ", ".join(keys) or "studies of another process"
        logger.warning("step %d skipped, loss or gradient not finite: %s", report.step, studies)
        if self._bad == self.config.bad_steps:
            raise DataError(
                f"{self._bad} steps in a row with a loss or gradient that is not finite, the last "
                f"with {studies}; look at these studies, or lower optim.lr"
            )

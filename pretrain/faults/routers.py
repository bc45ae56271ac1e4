"""Experts that the routers no longer choose."""

import logging
from collections.abc import Sequence

from gliomoe.pretrain.sections import HealthConfig

logger = logging.getLogger(__name__)


class Routers:
    """Follows how the choices of each layer are shared out among its experts.

    Args:
        config: What counts as unused, and for how long.
        state: What `state` gave when the checkpoint was written that is continued from.
    """

    def __init__(self, config: HealthConfig, state: list[list[int]] | None = None):
        self._config = config
        self._unused = [list(layer) for layer in state or []]

    def state(self) -> list[list[int]]:
        """For each layer and expert, the steps for which it has been unused."""
        return [list(layer) for layer in self._unused]

    def follow(self, use: Sequence[Sequence[float]]) -> dict[str, float]:
        """Take up a step, and warn of experts that now count as collapsed, once each time.

        Args:
            use: Each expert's share of the choices, layer by layer.

        Returns:
            `unused`: experts below `collapse_share`; `longest_unused`: steps of the longest such
            time. Empty without mixtures.
        """
        if not use:
            return {}
        before = self._unused or [[0] * len(shares) for shares in use]
        self._unused = [
            [n + 1 if share < self._config.collapse_share else 0 for n, share in layer]
            for layer in map(zip, before, use)
        ]
        for layer, steps in enumerate(self._unused):
            for expert, n in enumerate(steps):
                self._tell(layer, expert, n, before[layer][expert])
        steps = [n for layer in self._unused for n in layer]
        return {
            "unused": float(sum(n > 0 for n in steps)),
            "longest_unused": float(max(steps)),
        }

    def _tell(self, layer: int, expert: int, now: int, before: int) -> None:
        """Say that an expert has collapsed, or is used again."""
        limit = self._config.collapse_steps
        if now == limit:
            logger.warning(
                "expert %d of mixture %d got under %g %% of the choices for %d steps; "
                "raise loss.routing, or balance with router_bias=true in model.set",
                expert,
                layer,
                100 * self._config.collapse_share,
                limit,
            )
        elif now == 0 and before >= limit:
            logger.warning("expert %d of mixture %d is used again", expert, layer)

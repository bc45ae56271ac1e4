"""How far a run is, in a terminal or a log file."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)

_FORMAT = "{desc} {n_fmt}/{total_fmt} |{bar:12}| {percentage:3.0f} %{postfix}"


class Bar:
    """A bar in a terminal, otherwise a line every so many steps.

    Args:
        start: Steps done before.
        steps: Steps of the whole run.
        every: Steps between lines.
    """

    def __init__(self, start: int, steps: int, every: int):
        self._start, self._steps, self._every = start, steps, every
        self._terminal = sys.stderr.isatty()
        self._begun = 0.0
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc="pretrain",
            bar_format=_FORMAT,
            dynamic_ncols=True,
            disable=not self._terminal,
        )
        self._messages = ExitStack()
        if self._terminal:  # what is logged goes above the bar
            self._messages.enter_context(logging_redirect_tqdm())

    def show(self, done: int, speed: float, wait: float, parts: Mapping[str, float | int]) -> None:
        """Show a step.

        Args:
            done: Steps done.
            speed: Studies a second.
            wait: Share of the time spent waiting for data, percent.
            parts: Losses and counts by name.
        """
        now = time.monotonic()
        self._begun = self._begun or now
        known = done - self._start - 1  # the first step, which also warms up, is not counted
        left = (now - self._begun) / known * (self._steps - done) if known else None
        remaining = "?" if left is None else str(timedelta(seconds=round(left)))
        pace = f"{speed:.3g} studies/s  data wait {wait:.0f} %  {remaining} left"
        said = "  ".join(f"{name} {value:.4g}" for name, value in parts.items())
        if self._terminal:
            self._bar.set_postfix_str(f"{pace}  {said}", refresh=False)
            self._bar.update(done - self._bar.n)
        elif done % self._every == 0 or done == self._steps:
            logger.info("step %d/%d  %s  %s", done, self._steps, said, pace)

    @contextmanager
    def at_work(self, what: str) -> Iterator[None]:
        """Say in the bar what takes the time between two steps."""
        self._bar.set_description_str(what)
        try:
            yield
        finally:
            self._bar.set_description_str("pretrain")

    def close(self) -> None:
        """Leave the bar as it is."""
        self._messages.close()
        self._bar.close()

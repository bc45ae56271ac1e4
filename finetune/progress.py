"""How far a fold is, in a terminal or a log file."""

import logging
import time

from tqdm import tqdm

log = logging.getLogger(__name__)


class FoldBar:
    """A bar in a terminal, otherwise a line after each validation.

    Args:
        name: As `fold 1/5`.
        epochs: Epochs of the fold, if it does not stop early.
        steps: Steps in an epoch.
        done: Epochs done before.
        row: Of the terminal, where folds run side by side.
    """

    def __init__(self, name: str, epochs: int, steps: int, done: int, row: int = 0):
        self._name, self._epochs, self._steps, self._done = name, epochs, steps, done
        self._begun, self._losses = time.monotonic(), list[float]()
        self._bar = tqdm(
            desc=name,
            total=epochs * steps,
            initial=done * steps,
            unit="step",
            position=row,
            smoothing=0,  # validation takes its share of the time that is left
            dynamic_ncols=True,
            disable=None,
        )

    def step(self, loss: float) -> None:
        """Show a step's loss."""
        self._losses.append(loss)
        self._bar.set_description(f"{self._name} loss {loss:.3f}", refresh=False)
        self._bar.update()

    def validated(self, epoch: int, best: float) -> None:
        """Show the best score so far, after so many epochs."""
        self._bar.set_postfix_str(f"validation {best:.3f}")
        if self._bar.disable:
            pace = (time.monotonic() - self._begun) / (epoch - self._done)
            log.info(
                "%s  epoch %d/%d  loss %.3f  validation %.3f  at most %s left",
                self._name,
                epoch,
                self._epochs,
                sum(self._losses) / len(self._losses),
                best,
                tqdm.format_interval(pace * (self._epochs - epoch)),
            )
        self._losses.clear()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

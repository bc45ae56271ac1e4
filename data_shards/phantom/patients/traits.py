"""Distributions that traits, ages and genes are drawn from, each with its density.

One object draws and weighs: what is drawn from it can be judged by it, so that the posterior of a
marker given the traits is exact.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtr, ndtri

Value = Any
"""One draw (a numpy scalar) or an array of draws."""


class Distribution(Protocol):
    """What a trait may follow."""

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Value:
        """One draw, or [size] of them."""

    def log_density(self, values: Value) -> np.ndarray:
        """[N] logarithm of the density (of the probability, where values are discrete)."""


@dataclass(frozen=True)
class Bernoulli:
    """True or false."""

    chance: float

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Value:
        """One bool, or [size]."""
        return rng.random(size) < self.chance

    def log_density(self, values: Value) -> np.ndarray:
        """[N] log probability."""
        return _log(np.where(np.asarray(values, bool), self.chance, 1 - self.chance))


@dataclass(frozen=True)
class Categorical:
    """One of several names or numbers."""

    shares: dict[Any, float]
    """Value → probability; they sum to 1."""

    def __post_init__(self) -> None:
        """Refuse shares that are no distribution."""
        if min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError(f"{self.shares}: shares must be 0 or more and sum to 1")

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Value:
        """One value, or [size]."""
        edges = np.cumsum(list(self.shares.values()))[:-1]
        return np.array(list(self.shares))[np.searchsorted(edges, rng.random(size), "right")]

    def log_density(self, values: Value) -> np.ndarray:
        """[N] log probability; of a value that is not among the shares, minus infinity."""
        values = np.asarray(values)
        chance = np.zeros(values.shape)
        for value, share in self.shares.items():
            chance[values == value] = share
        return _log(chance)


@dataclass(frozen=True)
class Normal:
    """A normal distribution cut off on both sides."""

    mean: float
    sd: float
    low: float
    high: float

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Value:
        """One number, or [size], by the inverse of the distribution function."""
        below, above = self._ends()
        inside = below + (above - below) * rng.random(size)
        return np.clip(self.mean + self.sd * ndtri(inside), self.low, self.high)

    def log_density(self, values: Value) -> np.ndarray:
        """[N]."""
        values = np.asarray(values, float)
        below, above = self._ends()
        height = 1 / (self.sd * np.sqrt(2 * np.pi) * (above - below))
        log = np.log(height) - ((values - self.mean) / self.sd) ** 2 / 2
        return np.where((values >= self.low) & (values <= self.high), log, -np.inf)

    def share_below(self, values: Value) -> np.ndarray:
        """[N] distribution function."""
        below, above = self._ends()
        at = ndtr((np.asarray(values, float) - self.mean) / self.sd)
        return np.clip((at - below) / (above - below), 0, 1)

    def _ends(self) -> tuple[float, float]:
        """Of the untruncated distribution function."""
        low, high = ((end - self.mean) / self.sd for end in (self.low, self.high))
        return float(ndtr(low)), float(ndtr(high))


@dataclass(frozen=True)
class LogNormal:
    """A number whose logarithm is normal, cut off on both sides."""

    median: float
    """Before the cut."""
    spread: float
    """Standard deviation of the logarithm."""
    low: float
    high: float

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Value:
        """One number, or [size]."""
        return np.clip(np.exp(self._log().draw(rng, size)), self.low, self.high)

    def log_density(self, values: Value) -> np.ndarray:
        """[N]."""
        log = _log(np.asarray(values, float))
        return self._log().log_density(log) - np.where(np.isfinite(log), log, 0)

    def _log(self) -> Normal:
        return Normal(np.log(self.median), self.spread, np.log(self.low), np.log(self.high))


@dataclass(frozen=True)
class Rounded:
    """A truncated normal distribution, rounded to whole numbers; its ends are halves."""

    exact: Normal

    def draw(self, rng: np.random.Generator, size: int | None = None) -> Value:
        """One whole number, or [size]."""
        return np.rint(self.exact.draw(rng, size)).astype(int)

    def log_density(self, values: Value) -> np.ndarray:
        """[N] log probability."""
        values = np.asarray(values, float)
        upper, lower = (self.exact.share_below(values + half) for half in (0.5, -0.5))
        return _log(upper - lower)


def _log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm, minus infinity of 0."""
    with np.errstate(divide="ignore"):
        return np.log(values)

"""The order of a run as a pure function: sample number → study, and named streams of seeds.

Notable: no list of studies is shuffled or kept, so that a run of any length over any number of
studies is resumed from one integer. A permutation is a keyed Feistel network over a rectangle just
larger than the numbers to permute, walked until it lands inside (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002).
"""

import functools
import hashlib
import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

_ROUNDS = 6
_SMALL = 64
"""Below this count a permutation takes twice the rounds: each mixes few numbers there."""
_MASK = (1 << 64) - 1
_FIRST, _SECOND = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_PERIOD = 1000
"""Samples within which the weights of a mixture are met exactly."""


def seed_for(seed: int, *stream: int | str) -> int:
    """A seed of 63 bits for a named stream, such as `seed_for(7, "mask", 1234)`.

    Args:
        seed: The run's seed.
        stream: What the seed is for; different streams are independent.
    """
    text = "\0".join(f"{type(part).__name__}:{part}" for part in (seed, *stream))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def study_at(n: int, studies: int, seed: int) -> int:
    """The study that sample number `n` of a run takes.

    Every epoch (`studies` samples) visits each study once, in a permutation of its own.

    Args:
        n: Sample number from 0.
        studies: How many studies there are.
        seed: The run's seed.

    Raises:
        ValueError: If `n` is negative or there is no study.
    """
    if n < 0 or studies < 1:
        raise ValueError(f"sample {n} of {studies} studies does not exist")
    epoch, position = divmod(n, studies)
    return permuted(position, studies, _key(seed, "order", epoch))


def permuted(position: int, count: int, key: int) -> int:
    """Where a permutation of the integers below `count` takes one of them.

    Args:
        position: From 0 to below `count`.
        count: How many integers there are.
        key: 64 bits that choose the permutation.
    """
    height = math.isqrt(count - 1) + 1
    width = -(-count // height)
    rounds = _ROUNDS if count >= _SMALL else 2 * _ROUNDS
    while True:
        left, right = divmod(position, width)
        for turn in range(key, key + rounds, 2):
            # The finaliser of MurmurHash3, written out: calls would double the time.
            mixed = ((right + turn) * _FIRST) & _MASK
            left = (left + (((mixed ^ (mixed >> 33)) * _SECOND & _MASK) >> 32)) % height
            mixed = ((left + turn + 1) * _FIRST) & _MASK
            right = (right + (((mixed ^ (mixed >> 33)) * _SECOND & _MASK) >> 32)) % width
        position = left * width + right
        if position < count:
            return position


@dataclass(frozen=True)
class Order:
    """The order over one range of studies, shuffled as the storage likes it.

    With `block` 1 an epoch is any permutation. Object stores are read in large requests when
    neighbours in a shard follow each other soon: then blocks of neighbours are permuted, laid end
    to end and cut into equal lanes, and a lane is shuffled within windows. Sample `n` belongs to
    lane `n % lanes`, so that a process that always takes the same places of a batch reads its own
    lanes only. An epoch then leaves out up to `lanes - 1` studies, others each time.
    """

    studies: int
    """How many studies there are."""
    seed: int
    """The run's seed."""
    block: int = 1
    """Neighbouring studies that stay together."""
    window: int = 1
    """Studies of a lane that are shuffled among each other; only with `block` above 1."""
    lanes: int = 1
    """Sequences that are read side by side."""

    def __post_init__(self) -> None:
        """Refuse what gives no order."""
        if min(self.studies, self.block, self.window, self.lanes) < 1:
            raise ValueError("studies, block, window and lanes of an order must be at least 1")
        if self.lanes > self.studies:
            raise ValueError(f"{self.studies} studies cannot be read in {self.lanes} lanes")

    def study(self, n: int) -> int:
        """The study that sample number `n` takes; `ValueError` if `n` is negative."""
        if self.block == 1 and self.lanes == 1:
            return study_at(n, self.studies, self.seed)
        if n < 0:
            raise ValueError(f"sample {n} does not exist")
        length = self.studies // self.lanes
        epoch, position = divmod(n, length * self.lanes)
        offset, lane = divmod(position, self.lanes)
        first = offset - offset % self.window
        key = _key(self.seed, "window", epoch) + (lane << 32) + first
        count = min(self.window, length - first)
        offset = first + permuted(offset - first, count, key & _MASK)
        return self._in_sequence(lane * length + offset, epoch)

    def _in_sequence(self, position: int, epoch: int) -> int:
        """The study at a position of the permuted blocks of an epoch, laid end to end."""
        whole = self.studies // self.block
        block, inside = divmod(position, self.block)
        if block < whole:
            block = permuted(block, whole, _key(self.seed, "blocks", epoch))
        # Turned, so that what comes last or is left out is not always the same.
        turn = _key(self.seed, "turn", epoch)
        return (block * self.block + inside + turn) % self.studies


class Mixture:
    """Which of several shard sets a sample takes: of every 1000 in a lane exactly so many.

    Each set counts its own samples, so that it keeps its own epochs.

    Args:
        weights: Share of the samples of each set; they need not sum to 1.
        seed: The run's seed.
        lanes: As of `Order`.

    Raises:
        ValueError: If a weight is not positive.
    """

    def __init__(self, weights: Sequence[float], seed: int, lanes: int = 1):
        if not weights or not all(0 < weight < math.inf for weight in weights):
            raise ValueError("every weight must be positive")
        self._seed, self._lanes = seed, lanes
        self._ends = list(itertools.accumulate(quotas(weights)))

    def draw(self, n: int) -> tuple[int, int]:
        """The set of sample number `n`, and the sample's number in that set."""
        offset, lane = divmod(n, self._lanes)
        period, place = divmod(offset, _PERIOD)
        key = _key(self._seed, "mixture", period) + lane
        place = permuted(place, _PERIOD, key & _MASK)
        part = bisect_right(self._ends, place)
        begin = self._ends[part - 1] if part else 0
        own = period * (self._ends[part] - begin) + place - begin
        return part, own * self._lanes + lane


def quotas(weights: Sequence[float]) -> list[int]:
    """Samples out of 1000 of each weight, at least one, by largest remainders."""
    shares = [weight / sum(weights) * _PERIOD for weight in weights]
    counts = [max(1, int(share)) for share in shares]
    by_need = sorted(range(len(counts)), key=lambda i: counts[i] - shares[i])
    missing = _PERIOD - sum(counts)
    for i in by_need[:missing]:
        counts[i] += 1
    while sum(counts) > _PERIOD:  # many tiny weights were raised to one
        counts[max(range(len(counts)), key=counts.__getitem__)] -= 1
    return counts


@functools.lru_cache(256)
def _key(seed: int, stream: str, number: int) -> int:
    """The key of a permutation."""
    return seed_for(seed, stream, number)

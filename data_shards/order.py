"""The order of a run as a pure function: sample number → study, and named streams of seeds.

Notable: no list of studies is shuffled or kept. The permutation of an epoch is a keyed Feistel
network over the next power of four, walked until it lands inside (Black and Rogaway, "Ciphers with
arbitrary finite domains", 2002), so that a run of any length is resumed from one integer.
"""

import hashlib

_ROUNDS = 6


def seed_for(seed: int, *stream: int | str) -> int:
    """A seed of 63 bits for a named stream, such as `seed_for(7, "mask", 1234)`.

    Args:
        seed: The run's seed.
        stream: What the seed is for; different streams are independent.
    """
    text = "\0".join(f"{type(part).__name__}:{part}" for part in (seed, *stream))
    return int.from_bytes(_hash(text.encode()), "big") >> 1


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
    key = seed_for(seed, "order", epoch).to_bytes(8, "big")
    half = max(1, ((studies - 1).bit_length() + 1) // 2)
    while True:
        position = _feistel(position, half, key)
        if position < studies:
            return position


def _feistel(value: int, half: int, key: bytes) -> int:
    """A permutation of the integers below 4 ** half."""
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for turn in range(_ROUNDS):
        digest = _hash(turn.to_bytes(1, "big") + right.to_bytes(8, "big"), key)
        left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
    return (left << half) | right


def _hash(text: bytes, key: bytes = b"") -> bytes:
    """Eight bytes that depend on all of text and key, alike on every machine."""
    return hashlib.blake2b(text, digest_size=8, key=key).digest()

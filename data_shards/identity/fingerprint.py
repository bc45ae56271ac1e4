"""A hash of what a study's images show, to find the same study in two data sets.

Notable: taken from the intensities as read, after orientation and before everything else, so it
depends neither on the preprocessing settings nor on how a file stores its axes.
"""

import hashlib
from collections.abc import Iterable

import numpy as np


def fingerprint(volumes: Iterable[np.ndarray]) -> str:
    """32 hexadecimal digits.

    Args:
        volumes: [D, H, W] float32, each along R, A, S; their order does not matter.
    """
    digests = sorted(_digest(volume) for volume in volumes)
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def _digest(volume: np.ndarray) -> bytes:
    """Hash of size and content of one volume."""
    digest = hashlib.blake2b(repr(volume.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(volume, "<f4").data)
    return digest.digest()

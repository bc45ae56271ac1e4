"""Gliomas drawn as they are among patients."""

import numpy as np
import pytest

from gliomoe.data_shards.phantom.patients.markers import (
    GLIOMA_TYPES,
    draw_glioma,
)


def _gliomas(number: int, seed: int = 3, **settings) -> list:
    rng = np.random.default_rng(seed)
    shares = [kind.share for kind in GLIOMA_TYPES.values()]
    types = rng.choice(list(GLIOMA_TYPES), number, p=shares)
    return [draw_glioma(str(who_type), rng, **settings)[0] for who_type in types]


@pytest.fixture(scope="session")
def gliomas():
    """The function that draws gliomas as they are among patients."""
    return _gliomas


@pytest.fixture(scope="session")
def tumours():
    return _gliomas(1200)

"""Signal of a tissue in a series: what a voxel full of it gives."""

import numpy as np

from gliomoe.data_shards.phantom.scanner.equations import Values, mprage, spin_echo
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition
from gliomoe.data_shards.phantom.scanner.tissues import (
    FATTY,
    RELAXIVITY,
    RELAXIVITY_T2,
    Relaxation,
)

_FAT_LEFT = 0.06
"""Share of fat's signal that is left by fat suppression."""


def signal(
    acquisition: Acquisition,
    name: str,
    tissue: Relaxation,
    gadolinium: Values | None = None,
    b: float | None = None,
) -> np.ndarray:
    """Steady-state signal, of that of fully relaxed water; negative where still inverted.

    Args:
        acquisition: The series; `t1ce` is the only one in which the agent counts.
        name: Of the tissue, which fat suppression asks for.
        tissue: Relaxation, density and diffusion.
        gadolinium: mmol/l, one or many; None takes the tissue's.
        b: Diffusion weighting in s/mm2; None takes the series'.

    Returns:
        Float64 of the shape of `gadolinium`, or of no axis.
    """
    rate1, rate2 = np.asarray(1000 / tissue.t1), np.asarray(1000 / tissue.t2)
    if acquisition.sequence == "t1ce":
        agent = np.asarray(tissue.gadolinium if gadolinium is None else gadolinium)
        strong = int(acquisition.field == 3.0)
        rate1 = rate1 + RELAXIVITY[strong] * agent
        rate2 = rate2 + RELAXIVITY_T2[strong] * agent
    along = _magnetisation(acquisition, 1000 / rate1)
    weighting = acquisition.b if b is None else b
    # Diffusion in 10^-3 mm2/s. At the echo times of a gradient echo T2 stands well for T2*.
    decay = acquisition.te * rate2 / 1000 + weighting * tissue.adc / 1000
    left = _FAT_LEFT if acquisition.fat_suppressed and name in FATTY else 1.0
    return left * tissue.density * along * np.exp(-decay)


def _magnetisation(acquisition: Acquisition, t1: np.ndarray) -> np.ndarray:
    """Magnetisation that a series turns into signal, of equilibrium."""
    train = acquisition.echo_train * acquisition.echo_spacing
    if not acquisition.gradient_echo:
        return spin_echo(t1, acquisition.tr, max(train, acquisition.te), acquisition.ti)
    if acquisition.ti is None:
        raise ValueError("an MP-RAGE needs an inversion time")
    return mprage(
        t1,
        acquisition.tr,
        acquisition.ti,
        acquisition.flip,
        acquisition.echo_train,
        acquisition.echo_spacing,
    )

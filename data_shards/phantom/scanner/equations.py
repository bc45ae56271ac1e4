"""Equations of the longitudinal magnetisation, free of tissues and protocols.

Spin echo with or without a train of echoes and inversion: the longitudinal magnetisation is gone
until the last refocusing pulse and recovers from there (Rydberg et al., MRM 1995). Inversion
before a train of small flip angles, MP-RAGE: Mugler and Brookeman, MRM 1990; the steady state of
the whole cycle is solved as Deichmann et al., NeuroImage 2000 do.
"""

import numpy as np

Values = float | np.ndarray


def spin_echo(t1: Values, tr: float, train: float, ti: float | None = None) -> np.ndarray:
    """Longitudinal magnetisation at the excitation of a spin or turbo spin echo.

    Args:
        t1: ms.
        tr: Repetition time, ms.
        train: From excitation to the last echo, ms.
        ti: From inversion to excitation, ms; None without inversion.

    Returns:
        Of equilibrium, signed.
    """
    t1 = np.asarray(t1, np.float64)
    recovered = np.exp(-(tr - train) / t1)
    return 1 - recovered if ti is None else 1 - 2 * np.exp(-ti / t1) + recovered


def null_time(t1: float, tr: float, train: float) -> float:
    """Inversion time at which a tissue gives no signal in a spin echo, ms."""
    return float(t1 * np.log(2 / (1 + np.exp(-(tr - train) / t1))))


def mprage(
    t1: Values, tr: float, ti: float, flip: float, pulses: int, spacing: float
) -> np.ndarray:
    """Transverse magnetisation at the centre of k-space of an MP-RAGE, without T2* decay.

    Args:
        t1: ms.
        tr: From inversion to inversion, ms.
        ti: From inversion to the middle pulse of the train, ms.
        flip: Degrees.
        pulses: In one train.
        spacing: Between pulses, ms.

    Returns:
        Of equilibrium, signed.

    Raises:
        ValueError: If the train does not fit between two inversions.
    """
    before = ti - pulses // 2 * spacing
    after = tr - before - pulses * spacing
    if before < 0 or after < 0:
        raise ValueError(f"a train of {pulses} pulses, {spacing} ms apart, does not fit")
    t1 = np.asarray(t1, np.float64)
    e = np.exp(-spacing / t1)
    cosine = np.cos(np.deg2rad(flip))
    shrink = cosine * e
    fixed = (1 - e) / (1 - shrink)  # what the train drives the magnetisation to

    def train(start: np.ndarray, count: int) -> np.ndarray:
        return fixed + (start - fixed) * shrink**count

    def recover(start: np.ndarray, time: float) -> np.ndarray:
        return 1 + (start - 1) * np.exp(-time / t1)

    def cycle(start: np.ndarray) -> np.ndarray:
        return recover(train(recover(-start, before), pulses), after)

    # A cycle maps the magnetisation linearly, so that its fixed point follows from two values.
    zero, one = cycle(np.zeros_like(t1)), cycle(np.ones_like(t1))
    steady = zero / (1 - (one - zero))
    return np.sin(np.deg2rad(flip)) * train(recover(-steady, before), pulses // 2)

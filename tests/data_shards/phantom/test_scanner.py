"""Phantom scans: signals, contrasts."""

import numpy as np
import pytest

from gliomoe.data_shards.phantom.scanner.acquire import (
    PROTOCOLS,
    TISSUES,
    Acquisition,
    draw_session,
    signal,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_signal_is_the_textbook_one():
    def series(sequence: str, ti: float | None = None) -> Acquisition:
        return Acquisition(sequence, 3.0, 500.0, 10.0, ti, 1.0, 2, 0.0, 30.0, 1000.0)

    assert signal(series("t1"), 1e-3, 1e9, 0.8, 0) == pytest.approx(0.8)
    assert signal(series("t1"), 500.0, 1e9, 1.0, 0) == pytest.approx(1 - np.exp(-1))
    # The inversion time that nulls a tissue: T1 ln(2 / (1 + exp(-TR / T1))).
    null = 700 * np.log(2 / (1 + np.exp(-500 / 700)))
    assert signal(series("flair", null), 700.0, 100.0, 1.0, 0) == pytest.approx(0, abs=1e-9)
    # Only T1ce sees gadolinium: 1 / T1 rises by relaxivity times concentration.
    t1 = 1000 / (1000 / 1500 + 3.7 * 0.5)
    after = signal(series("t1ce"), 1500.0, 100.0, 1.0, 0.5)
    assert after == pytest.approx(signal(series("t1ce"), t1, 100.0, 1.0, 0))
    before = signal(series("t1"), 1500.0, 100.0, 1.0, 0)
    assert signal(series("t1"), 1500.0, 100.0, 1.0, 0.5) == before < after


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_contrast_of_each_sequence(protocol):
    for seed in range(5):
        for sequence, series in draw_session(protocol, rng(seed)).items():
            strong = int(series.field == 3.0)
            bright = {
                name: signal(series, t.t1[strong], t.t2[strong], t.density, np.mean(t.gadolinium))
                for name, t in TISSUES.items()
            }
            if sequence in ("t1", "t1ce"):
                assert bright["wm"] > bright["gm"] > bright["csf"]
            if sequence == "t1ce":
                assert bright["enhancing"] > 1.2 * bright["wm"]
            if sequence == "t2":
                assert bright["csf"] > bright["oedema"] > bright["gm"] > bright["wm"]
            if sequence == "flair":
                assert bright["oedema"] > bright["gm"] > bright["csf"]
                assert bright["solid"] > 1.2 * bright["mismatch"]

"""Phantom scans: signal equations, contrasts, protocols, spread between subjects."""

from dataclasses import replace

import numpy as np
import pytest

from gliomoe.data_shards.phantom.scanner.equations import mprage, null_time, spin_echo
from gliomoe.data_shards.phantom.scanner.protocols import (
    PROTOCOLS,
    SEQUENCES,
    Acquisition,
    cleaned,
    draw_session,
)
from gliomoe.data_shards.phantom.scanner.signal import signal
from gliomoe.data_shards.phantom.scanner.tissues import TISSUES, Relaxation, draw_relaxation

WATER = Relaxation(t1=1e-3, t2=1e9, density=0.8, adc=0.0, gadolinium=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_tissues(field: float) -> dict[str, Relaxation]:
    """Every tissue as the table has it."""
    strong = int(field == 3.0)
    return {
        name: Relaxation(t.t1[strong], t.t2[strong], t.density, t.adc, float(np.mean(t.gadolinium)))
        for name, t in TISSUES.items()
    }


def series(sequence: str, **settings) -> Acquisition:
    times = {"field": 3.0, "tr": 500.0, "te": 10.0, "ti": None, "gain": 1000.0}
    return Acquisition(sequence, **{**times, **settings})


def test_spin_echo_is_the_textbook_one():
    assert spin_echo(1e-3, 500, 10) == pytest.approx(1)
    # The limit of a single, early echo: 1 - exp(-TR / T1).
    assert spin_echo(500.0, 500, 0) == pytest.approx(1 - np.exp(-1))
    # Hahn's exact signal, 1 - 2 exp(-(TR - TE / 2) / T1) + exp(-TR / T1), within 1 %.
    exact = 1 - 2 * np.exp(-(500 - 5) / 800) + np.exp(-500 / 800)
    assert spin_echo(800.0, 500, 10) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("train", [0.0, 180.0])
def test_inversion_nulls_a_tissue(train):
    null = null_time(4300, 9000, train)
    assert spin_echo(4300.0, 9000, train, null) == pytest.approx(0, abs=1e-12)
    assert spin_echo(4300.0, 9000, train, 0.9 * null) < 0 < spin_echo(4300.0, 9000, train, null + 9)


@pytest.mark.parametrize("t1", [400.0, 832.0, 1331.0, 4300.0])
def test_mprage_is_the_steady_state_of_its_pulses(t1):
    tr, ti, flip, pulses, spacing = 2300.0, 950.0, 9.0, 170, 7.5
    before = ti - pulses // 2 * spacing
    magnetisation = 1.0
    for _ in range(40):  # one pulse after the other, until nothing changes
        magnetisation = 1 - (1 + magnetisation) * np.exp(-before / t1)
        for pulse in range(pulses):
            if pulse == pulses // 2:
                centre = magnetisation * np.sin(np.deg2rad(flip))
            magnetisation *= np.cos(np.deg2rad(flip))
            magnetisation = 1 - (1 - magnetisation) * np.exp(-spacing / t1)
        after = tr - before - pulses * spacing
        magnetisation = 1 - (1 - magnetisation) * np.exp(-after / t1)
    assert mprage(t1, tr, ti, flip, pulses, spacing) == pytest.approx(centre, rel=1e-9)


def test_mprage_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        mprage(800.0, 1000, 900, 9, 200, 8)


def test_signal_weighs_by_density_t2_and_diffusion():
    assert signal(series("t1"), "wm", WATER) == pytest.approx(0.8)
    slow = replace(WATER, t2=80.0)
    assert signal(series("t2", te=100.0), "wm", slow) == pytest.approx(0.8 * np.exp(-100 / 80))
    # 0.7 x 10^-3 mm2/s at 1000 s/mm2.
    moving = replace(WATER, adc=0.7)
    weighted = signal(series("dwi", b=1000.0), "wm", moving)
    assert weighted == pytest.approx(0.8 * np.exp(-0.7))
    assert signal(series("dwi", b=1000.0), "wm", moving, b=0.0) == pytest.approx(0.8)


def test_only_t1ce_sees_gadolinium():
    tissue = Relaxation(t1=1500.0, t2=100.0, density=1.0, adc=1.0, gadolinium=0.5)
    # Rates rise by relaxivity times concentration.
    shortened = replace(tissue, t1=1 / (1 / 1500 + 3.7e-3 * 0.5), t2=1 / (1 / 100 + 5.2e-3 * 0.5))
    before = signal(series("t1"), "solid", tissue)
    after = signal(series("t1ce"), "solid", tissue)
    assert before == signal(series("t1"), "solid", tissue, gadolinium=0.0)
    assert after == pytest.approx(signal(series("t1"), "solid", shortened))
    assert after > before
    both = signal(series("t1ce"), "solid", tissue, gadolinium=np.array([0.0, 0.5]))
    np.testing.assert_allclose(both, [before, after])


def test_fat_suppression_takes_fat_alone():
    fat = mean_tissues(3.0)["scalp_fat"]
    plain, suppressed = series("t2"), series("t2", fat_suppressed=True)
    assert signal(suppressed, "scalp_fat", fat) < 0.1 * signal(plain, "scalp_fat", fat)
    assert signal(suppressed, "wm", fat) == signal(plain, "wm", fat)


ORDERS = {
    "t1": ("scalp_fat", "wm", "solid", "necrosis", "mismatch", "csf", "skull"),
    "t1ce": ("scalp_fat", "enhancing", "wm", "necrosis", "csf", "skull"),
    "t2": ("csf", "oedema", "gm", "wm", "muscle", "vessel", "skull"),
    "flair": ("oedema", "gm", "csf", "skull"),
    "pd": ("gm", "wm", "csf", "skull"),
    "dwi": ("infarct", "gm", "wm", "csf", "skull"),
}
"""From bright to dark."""


@pytest.mark.parametrize("sequence", ORDERS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_contrast_of_each_sequence(protocol, sequence):
    for seed in range(12):
        acquisition = draw_session(protocol, rng(seed))[sequence]
        tissues = mean_tissues(acquisition.field)
        bright = {name: abs(float(signal(acquisition, name, t))) for name, t in tissues.items()}
        values = [bright[name] for name in ORDERS[sequence]]
        assert values == sorted(values, reverse=True), bright
        if sequence == "t1":
            assert bright["wm"] > 1.15 * bright["gm"] > 1.3 * bright["csf"]
        if sequence == "t1ce":
            assert bright["enhancing"] > 1.2 * bright["gm"] < bright["vessel"]
        if sequence == "t2":
            assert bright["mismatch"] > 0.9 * bright["solid"] > 1.1 * bright["gm"]
        if sequence == "flair":
            assert bright["solid"] > 1.2 * bright["mismatch"]
            assert min(bright[name] for name in ("lesion", "infarct", "enhancing")) > bright["wm"]
        if sequence == "dwi":
            assert bright["infarct"] > 1.4 * bright["gm"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_session(protocol):
    again = draw_session(protocol, rng(3))
    session = draw_session(protocol, rng(3))
    assert session == again
    assert sorted(session) == sorted(SEQUENCES)
    assert len({acquisition.field for acquisition in session.values()}) == 1
    assert session["adc"] == replace(session["dwi"], sequence="adc")
    assert session["t1"].motion.turn == (0, 0, 0) != session["flair"].motion.turn
    for acquisition in session.values():
        assert acquisition.phase_axis != acquisition.slice_axis
        assert 0.5 <= acquisition.in_plane <= 2.4
        assert 0.9 <= acquisition.thickness + acquisition.gap <= 7
        if not acquisition.volume:
            # The stored order keeps slices together, as files do.
            ends = {0: "RL", 1: "AP", 2: "SI"}[acquisition.slice_axis]
            places = [place for place, code in enumerate(acquisition.stored) if code in ends]
            assert len(places) == 1


def test_clean_series_keeps_its_contrast():
    acquisition = draw_session("B", rng())["flair"]
    clean = cleaned(acquisition)
    assert clean.snr == np.inf and not clean.bias and not clean.ghost and not clean.thickness
    tissue = mean_tissues(acquisition.field)["oedema"]
    assert signal(clean, "oedema", tissue) == signal(acquisition, "oedema", tissue)


def test_subjects_differ_as_patients_do():
    """Ratio to the brain, 5th and 95th percentile: the range of public glioma images."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for seed in range(150):
        session = draw_session("AB"[seed % 2], rng(seed))
        tissues = draw_relaxation(session["t1"].field, rng(1000 + seed))
        for sequence in ("t1", "t1ce", "t2", "flair"):
            acquisition = session[sequence]
            bright = {name: float(signal(acquisition, name, t)) for name, t in tissues.items()}
            brain = (bright["gm"] + bright["wm"]) / 2
            for name, value in bright.items():
                ratios.setdefault((sequence, name), []).append(value / brain)

    def check(sequence: str, name: str, low: tuple[float, float], high: tuple[float, float]):
        bottom, top = np.percentile(ratios[sequence, name], (5, 95))
        assert low[0] < bottom < low[1], (sequence, name, bottom)
        assert high[0] < top < high[1], (sequence, name, top)

    check("t1", "necrosis", (0.5, 0.75), (0.85, 1.2))
    check("t1", "oedema", (0.7, 0.95), (1.0, 1.15))
    check("t1ce", "enhancing", (1.05, 1.3), (1.7, 2.3))
    check("t2", "oedema", (1.1, 1.4), (1.8, 2.6))
    check("t2", "necrosis", (1.3, 1.9), (2.4, 3.5))
    check("flair", "oedema", (1.1, 1.4), (1.8, 2.6))
    check("flair", "necrosis", (0.8, 1.4), (2.0, 3.2))


def test_leakage_scales_the_tumour_alone():
    plain, leaky = draw_relaxation(3.0, rng()), draw_relaxation(3.0, rng(), leakage=2.0)
    assert leaky["enhancing"].gadolinium == 2 * plain["enhancing"].gadolinium
    assert leaky["vessel"] == plain["vessel"]

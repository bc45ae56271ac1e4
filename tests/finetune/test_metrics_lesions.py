"""Lesion-wise figures against a loop over lesions, and by hand; satellites by size."""

import numpy as np
import pytest
from scipy import ndimage

from gliomoe.finetune.metrics.lesions import LesionFigures, lesion_figures, satellites

ALL = ndimage.generate_binary_structure(3, 3)
STEP = ndimage.generate_binary_structure(3, 2)


def balls(*places: tuple[int, int, int, float], shape=(40, 36, 32)) -> np.ndarray:
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mask = np.zeros(shape, bool)
    for *centre, radius in places:
        mask |= np.linalg.norm(grid - centre, axis=-1) <= radius
    return mask


def naive(prediction: np.ndarray, truth: np.ndarray, steps: int, voxel: float) -> LesionFigures:
    """Lesion after lesion on the whole volume, as the challenge describes it."""
    truth_parts, parts = ndimage.label(truth, ALL)
    merged, lesions = ndimage.label(ndimage.binary_dilation(truth, STEP, steps), ALL)
    predicted, components = ndimage.label(prediction, ALL)
    dice, found, touched = [], 0, set()
    for number in range(1, lesions + 1):
        members = [p for p in range(1, parts + 1) if (merged[truth_parts == p] == number).all()]
        lesion = np.isin(truth_parts, members)
        near = ndimage.binary_dilation(lesion, STEP, steps)
        hits = set(np.unique(predicted[near])) - {0}
        touched |= hits
        if lesion.sum() * voxel > 50:
            answer = np.isin(predicted, list(hits))
            dice.append(2 * (lesion & answer).sum() / (lesion.sum() + answer.sum()))
            found += bool(hits)
    judged = len(dice) + components - len(touched)
    score = sum(dice) / judged if judged else 1.0
    return LesionFigures(len(dice), found, components, len(touched), score)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("spacing", "steps"), [(1.0, 3), (2.0, 2), (3.5, 1)])
def test_against_a_loop_over_lesions(seed, spacing, steps):
    rng = np.random.default_rng(seed)

    def draw(count):
        return balls(
            *[(*rng.integers(0, (40, 36, 32)), rng.uniform(0.5, 4.5)) for _ in range(count)]
        )

    truth, prediction = draw(7), draw(7)
    found = lesion_figures(prediction, truth, (spacing,) * 3)
    expected = naive(prediction, truth, steps, spacing**3)
    assert (found.lesions, found.found) == (expected.lesions, expected.found)
    assert (found.predicted, found.matched) == (expected.predicted, expected.matched)
    assert found.dice == pytest.approx(expected.dice)


def test_by_hand():
    truth = balls((10, 10, 10, 4), (30, 26, 22, 4))
    prediction = balls((10, 10, 10, 4), (10, 28, 8, 2))
    found = lesion_figures(prediction, truth, (1.0, 1.0, 1.0))
    assert found == LesionFigures(2, 1, 2, 1, pytest.approx(1 / 3))


def test_pieces_within_the_dilation_are_one_lesion():
    truth = balls((10, 10, 10, 4), (10, 10, 18, 2))
    assert lesion_figures(truth, truth, (1.0,) * 3) == LesionFigures(1, 1, 2, 2, 1.0)
    far = balls((10, 10, 8, 4), (10, 10, 25, 4))
    assert lesion_figures(far, far, (1.0,) * 3).lesions == 2


def test_empty_masks_and_small_lesions():
    nothing, lesion, speck = balls(), balls((10, 10, 10, 4)), balls((30, 20, 20, 1))
    mm = (1.0, 1.0, 1.0)
    assert lesion_figures(nothing, nothing, mm) == LesionFigures(0, 0, 0, 0, 1.0)
    assert lesion_figures(nothing, lesion, mm) == LesionFigures(1, 0, 0, 0, 0.0)
    assert lesion_figures(lesion, nothing, mm) == LesionFigures(0, 0, 1, 0, 0.0)
    # 7 mm³ are too little to be counted, missed or found.
    assert lesion_figures(nothing, speck, mm) == LesionFigures(0, 0, 0, 0, 1.0)
    assert lesion_figures(speck, speck, mm) == LesionFigures(0, 0, 1, 1, 1.0)


def test_satellites_by_size():
    truth = balls((10, 10, 10, 5), (30, 10, 10, 1), (30, 25, 10, 2), (30, 25, 25, 2))
    prediction = balls((10, 10, 10, 4), (30, 25, 10, 1), (5, 30, 28, 2))
    found = sorted(satellites(prediction, truth, (1.0, 1.0, 1.0)), key=lambda s: s.diameter)
    diameters = [s.diameter for s in found]
    assert diameters == pytest.approx([np.cbrt(6 * n / np.pi) for n in (7, 33, 33)])
    assert [s.size for s in found] == ["<3", "3-5", "3-5"]
    assert sorted(s.found for s in found) == [False, False, True]
    assert not found[0].found
    coarse = satellites(prediction, truth, (2.0, 2.0, 2.0))
    assert sorted(s.size for s in coarse) == ["3-5", "5-10", "5-10"]
    assert satellites(prediction, balls((10, 10, 10, 5)), (1.0,) * 3) == ()
    assert satellites(prediction, balls(), (1.0,) * 3) == ()

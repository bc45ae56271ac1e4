"""Temperature scaling against a grid of temperatures, on degenerate cases and up to predictions."""

import math

import numpy as np
import pytest
import torch

from gliomoe.finetune.calibration import (
    FEWEST,
    Temperature,
    calibrated,
    fit_temperature,
    marker_rules,
    scale,
)


def overconfident(cases: int = 400, by: float = 2.5, seed: int = 0):
    """Labels drawn from probabilities, and the probabilities with their logits times `by`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.2, cases)
    label = (rng.random(cases) < 1 / (1 + np.exp(-logits))).astype(float)
    return 1 / (1 + np.exp(-by * logits)), label


def log_loss(p: np.ndarray, label: np.ndarray) -> float:
    return float(-np.log(np.where(label == 1, p, 1 - p).clip(1e-7)).mean())


def test_scaling_divides_logits():
    p = torch.tensor([[0.2], [0.9]], dtype=torch.float64)
    assert torch.allclose(scale(p, 2.0), (p.logit() / 2).sigmoid())
    logits = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    assert torch.allclose(scale(logits.softmax(-1), 3.0), (logits / 3).softmax(-1))
    assert scale(p, 1.0) is p


def test_scaling_keeps_certain_probabilities_finite():
    assert scale(torch.tensor([1.0]), 2.0).item() == pytest.approx(1, abs=1e-3)
    assert scale(torch.tensor([0.0, 0.0, 1.0]), 0.5).tolist() == pytest.approx([0, 0, 1])


def test_the_best_of_a_grid_of_temperatures():
    p, label = overconfident()
    found = fit_temperature(p[:, None], label)
    grid = np.exp(np.linspace(math.log(0.1), math.log(10), 301))
    losses = [log_loss(scale(torch.from_numpy(p[:, None]), t).numpy()[:, 0], label) for t in grid]
    assert found.value == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)
    assert found.value == pytest.approx(2.5, rel=0.15) and found.reason is None
    assert min(losses) < log_loss(p, label)


def test_classes_are_scaled_together():
    p, label = overconfident()
    both = fit_temperature(np.stack([1 - p, p], 1), label)
    assert both.value == pytest.approx(fit_temperature(p[:, None], label).value, rel=1e-4)


@pytest.mark.parametrize(
    ("p", "label", "reason"),
    [
        ([], [], "0 validation cases"),
        ([0.4] * (FEWEST - 1), [0, 1] * 3 + [1], "7 validation cases, 8 are needed"),
        ([0.4] * 10, [1] * 10, "one class"),
        ([0.3] * 5 + [0.7] * 5, [0] * 5 + [1] * 5, "told too well"),
        ([0.7] * 5 + [0.3] * 5, [0] * 5 + [1] * 5, "no better than by chance"),
    ],
)
def test_degenerate_cases_keep_temperature_one(p, label, reason):
    found = fit_temperature(np.array(p, float)[:, None], np.array(label, float))
    assert found.value == 1 and found.cases == len(label) and reason in found.reason


def test_thresholds_are_of_calibrated_probabilities():
    p, label = overconfident(60)
    cases = [({"idh": y, "grade": math.nan}, {"idh": [x], "grade": [1.0, 0, 0]})
             for x, y in zip(p, label, strict=True)]  # fmt: skip
    cases.append(({"idh": math.nan, "grade": 2.0}, {"idh": [0.5], "grade": [1.0, 0.0, 0.0]}))
    rules = marker_rules(cases, ["idh", "grade"])
    assert rules["temperatures"]["grade"]["reason"] == "1 validation cases, 8 are needed"
    assert set(rules["thresholds"]) == {"idh"}
    temperature = Temperature(**rules["temperatures"]["idh"])
    assert temperature.cases == 60 and temperature.value > 1
    after = calibrated({"idh": torch.from_numpy(p[:, None])}, {"idh": temperature})["idh"]

    def youden(score, threshold):
        return (score >= threshold)[label == 1].mean() - (score >= threshold)[label == 0].mean()

    found = youden(after.numpy()[:, 0], rules["thresholds"]["idh"])
    assert found == pytest.approx(max(youden(p, threshold) for threshold in p))


def test_a_marker_without_known_labels():
    rules = marker_rules([({"tert": math.nan}, {"tert": [0.3]})], ["tert"])
    assert rules["thresholds"] == {"tert": None}
    assert rules["temperatures"]["tert"]["value"] == 1

"""The last layer of the markers, fitted anew: what is fitted, and what stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gliomoe.data_shards.batch import StudySample, collate
from gliomoe.finetune.inference import InferenceConfig, predict_study
from gliomoe.finetune.refit import fit, refit_markers
from gliomoe.models.registry import create_model

SMALL = {"patch_size": 4, "width": 24, "depth": 2, "heads": 2, "hidden": 32, "experts": 2,
         "expert_hidden": 16}  # fmt: skip
WINDOW = InferenceConfig(window=(16, 16, 16), precision="fp32")


def case(number: int, grade: float = 2.0, side: int = 16) -> StudySample:
    """Noise whose brightness tells IDH."""
    generator = torch.Generator().manual_seed(number)
    mutant = float(number % 2)
    voxels = torch.rand(2, side, 16, 16, generator=generator) * 0.5 + 0.3 + 0.4 * mutant
    targets = {"idh": mutant if number else float("nan"), "grade": grade}
    return StudySample(f"s{number}", voxels, torch.tensor([0, 3]), torch.ones(3), targets=targets)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("gliomoe_tiny", ("seg", "idh", "grade"), **SMALL)


def test_one_group_is_a_logistic_regression_on_standardised_numbers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (40, 6)), np.arange(40) % 2
    x[:, 1] += y
    weight, bias = fit(x, y, 1, [6], strength=2.0)
    standard = (x - x.mean(0)) / x.std(0) / np.sqrt(6)
    known = LogisticRegression(C=2.0, class_weight="balanced", max_iter=10_000).fit(standard, y)
    np.testing.assert_allclose(
        x @ weight[0] + bias[0], known.decision_function(standard), atol=1e-6
    )


def test_a_few_numbers_that_tell_are_not_drowned_by_many_that_do_not():
    rng = np.random.default_rng(0)
    y = np.arange(20) % 2
    noise, sign = rng.normal(0, 1, (20, 300)), (2 * y - 1 + rng.normal(0, 1, 20))[:, None]
    x = np.concatenate([noise, sign], 1)
    share = [abs(fit(x, y, 1, groups, 1.0)[0][0, -1]) for groups in ([300, 1], [301])]
    assert share[0] > 5 * share[1]


def test_classes_without_a_case_are_never_called():
    rng = np.random.default_rng(0)
    y = np.array([0, 2] * 10)
    x = rng.normal(0, 1, (20, 3)) + y[:, None]
    weight, bias = fit(x, y, 3, [3], 1.0)
    logits = x @ weight.T + bias
    assert (logits.argmax(1) == y).mean() > 0.9 and (logits[:, 1] < logits.min(1) + 1e-9).all()
    binary = LogisticRegression(C=1.0, class_weight="balanced", max_iter=10_000)
    standard = (x - x.mean(0)) / x.std(0) / np.sqrt(3)
    margin = binary.fit(standard, y).decision_function(standard)
    np.testing.assert_allclose(logits[:, 2] - logits[:, 0], margin, atol=1e-6)


def test_a_constant_number_gets_no_weight():
    x = np.stack([np.ones(8), np.arange(8) % 2], 1)
    weight, _ = fit(x, np.arange(8) % 2, 1, [2], 1.0)
    assert weight[0, 0] == 0 and weight[0, 1] > 0


@pytest.mark.parametrize("side", [16, 28])
def test_markers_of_whole_cases_are_learned_and_all_else_stays(model, side):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refit_markers(model, [case(n, side=side) for n in range(12)], 10.0, WINDOW)
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    # one grade alone is known: what was learned of it stays
    assert changed == {"heads.markers.classify.idh.weight", "heads.markers.classify.idh.bias"}
    assert model.training
    found = [float(predict_study([model.eval()], case(n, side=side), WINDOW).markers["idh"])
             for n in range(20, 30)]  # fmt: skip
    assert [p > 0.5 for p in found] == [n % 2 == 1 for n in range(20, 30)]


def test_grades_are_fitted_by_their_order(model):
    cases = [replace(case(n), targets={"idh": 1.0, "grade": 4.0 if n % 2 else 2.0})
             for n in range(12)]  # fmt: skip
    refit_markers(model, cases, 10.0, WINDOW)
    with torch.no_grad():
        logits = model.eval()(collate(cases)).markers["grade"]
    assert logits.argmax(1).tolist() == [2 if n % 2 else 0 for n in range(12)]

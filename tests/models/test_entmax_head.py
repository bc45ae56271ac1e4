"""The dense head trains on any number of studies; its probabilities can be exactly 0."""

import sys

import pytest
import torch

from gliomoe.models.errors import ModelError
from gliomoe.models.heads.activation import probabilities
from gliomoe.models.heads.entmax import EntmaxHead


def head(norm="layer"):
    torch.manual_seed(0)
    return EntmaxHead(8, (16, 4), {"idh": 1, "grade": 3}, dropout=0.0, norm=norm)


@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("studies", [1, 2, 9])
def test_gradient_in_training(studies, norm):
    made = head(norm).train()
    x = torch.randn(studies, 8, requires_grad=True, generator=torch.Generator().manual_seed(0))
    logits = made(x)
    assert {task: tuple(y.shape) for task, y in logits.items()} == {
        "idh": (studies, 1),
        "grade": (studies, 3),
    }
    sum(y.square().sum() for y in logits.values()).backward()
    assert x.grad.abs().sum(1).min() > 1e-4
    assert all(p.grad.isfinite().all() for p in made.parameters())


def of_rows(x):
    """Layer normalisation, row by row."""
    return torch.stack([(row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt() for row in x])


def of_the_start(x):
    """Batch normalisation in evaluation by fresh running statistics: mean 0, variance 1."""
    return x * (1 + 1e-5) ** -0.5


@pytest.mark.parametrize(("norm", "normalise"), [("layer", of_rows), ("batch", of_the_start)])
def test_against_the_layers(norm, normalise):
    made, x = head(norm).eval(), torch.randn(3, 8)
    first, second = made.dense[0], made.dense[4]
    hidden = normalise(x @ first.weight.T + first.bias).clamp(min=0)
    hidden = normalise(hidden @ second.weight.T + second.bias).clamp(min=0)
    expected = hidden @ made.logits["grade"].weight.T + made.logits["grade"].bias
    torch.testing.assert_close(made(x)["grade"], expected)


def test_sparse_probabilities():
    share = probabilities(torch.tensor([[4.0, 0.0, -1.0]]), "entmax15")
    assert share[0, 2] == 0 and share.sum() == 1


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "entmax", None)
    with pytest.raises(ModelError, match="mdl_ca needs entmax"):
        head()

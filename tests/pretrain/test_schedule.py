"""The learning rate at its corners."""

import pytest

from gliomoe.pretrain.engine.schedule import learning_rate
from gliomoe.pretrain.sections import OptimConfig


def test_warm_up_then_cosine():
    config = OptimConfig(lr=1e-4, lr_end=1e-6, warmup=10)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(1e-5)
    assert rates[9] == rates[10] == pytest.approx(1e-4)
    assert rates[-1] == pytest.approx(1e-6)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0, 1, OptimConfig(lr=1e-4, warmup=0)) == pytest.approx(1e-4)

"""Running means of the weights: the teacher of `jepa` and `optim.ema`."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from gliomoe.models.checkpoint import load_checkpoint, read_config
from gliomoe.pretrain import loop
from gliomoe.pretrain import step as steps
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.export import export
from gliomoe.pretrain.objectives.running_mean import RunningMean
from gliomoe.pretrain.train import pretrain


def tensors(run):
    return load_file(checkpoints.newest(run).folder / checkpoints.WEIGHTS)


def part(weights, prefix):
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def with_ema(config, objective="mae", decay=0.9):
    config = replace(config, loss=replace(config.loss, objective=objective))
    return replace(config, optim=replace(config.optim, ema=decay))


def test_it_equals_a_loop():
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    mean = RunningMean(source)
    expected = [weight.detach().double().clone() for weight in source.parameters()]
    for decay in (0.5, 0.9, 0.99):
        with torch.no_grad():
            for weight, value in zip(source.parameters(), expected, strict=True):
                weight.add_(torch.randn(weight.shape))
                value.mul_(decay).add_((1 - decay) * weight.double())
        source(torch.randn(5, 3))
        mean.update(source, decay)
    for weight, value in zip(mean.module.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.double(), value, atol=1e-6, rtol=1e-6)
    assert torch.equal(mean.module[1].running_mean, source[1].running_mean)
    assert not any(weight.requires_grad for weight in mean.parameters())


def test_it_is_float32_and_stays_in_evaluation():
    whole = nn.Sequential(nn.Linear(3, 4))
    whole.append(RunningMean(whole[0]))
    whole.to(torch.bfloat16).train()
    source, mean = whole
    mean.restore()
    assert source.weight.dtype == torch.bfloat16
    assert mean.module.weight.dtype == torch.float32
    assert not mean.training and not mean.module.training
    before = mean.module.weight.clone()
    with torch.no_grad():
        source.weight.add_(1)
    mean.update(source, 0.9999)  # bf16 would lose a step of this size
    moved = mean.module.weight - before
    torch.testing.assert_close(moved, torch.full((4, 3), 1e-4), atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_means_are_bit_equal_after_a_continued_run(config, killed_at, stage):
    config = with_ema(config, "jepa")
    config = replace(config, engine=replace(config.engine, zero_stage=stage))
    assert pretrain(config)
    broken = replace(config, run=replace(config.run, out=config.run.out.with_name("broken")))
    with killed_at(5):
        pretrain(broken)
    assert pretrain(broken)
    one, two = tensors(config.run.out), tensors(broken.run.out)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    encoder = part(one, "encoder.")
    for prefix in ("averaged.module.", "teacher.module."):
        mean = part(one, prefix)
        assert mean.keys() == encoder.keys()
        moved = [name for name in mean if not torch.equal(mean[name], encoder[name])]
        assert any("blocks" in name for name in moved)


@pytest.mark.slow
def test_the_mean_is_that_of_the_applied_steps_and_is_exported(config, monkeypatch, tmp_path):
    config = with_ema(config, decay=0.5)
    config = replace(config, run=replace(config.run, steps=4))
    expected, whole, make = {}, loop.train_step, steps.make_views
    part_number = [0]

    def spoil(pairs, *settings):
        views = make(pairs, *settings)
        if part_number[0] == 2:
            views.complete.voxels[views.complete.voxels != 0] = float("nan")
        part_number[0] += 1
        return views

    def train_step(training, number):
        encoder = training.engine.module.encoder
        if not expected:
            expected.update({k: w.detach().double() for k, w in encoder.named_parameters()})
        outcome = whole(training, number)
        if number != 2:  # skipped
            decay = min(0.5, (1 + number) / (10 + number))
            for name, weight in encoder.named_parameters():
                expected[name] = decay * expected[name] + (1 - decay) * weight.detach().double()
        return outcome

    monkeypatch.setattr(steps, "make_views", spoil)
    monkeypatch.setattr(loop, "train_step", train_step)
    assert pretrain(config)
    mean = part(tensors(config.run.out), "averaged.module.")
    for name, value in expected.items():
        torch.testing.assert_close(mean[name].double(), value, atol=1e-6, rtol=1e-5)

    out = tmp_path / "published"
    export(config.run.out, out)
    published = load_checkpoint(out).encoder.state_dict()
    for name, value in published.items():
        if not name.endswith("by_sequence"):  # unseen sequences take the weights of `other`
            assert torch.equal(value, mean[name]), name
    assert read_config(out)["training"]["weights"] == "running mean over the steps, decay 0.5"
    assert "decay 0.5" in (out / "README.md").read_text()

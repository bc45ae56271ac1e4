"""Options of the engine: what they may not change, and what they refuse."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.cli import main
from gliomoe.models.position import rotary_angles
from gliomoe.models.recompute import set_recompute
from gliomoe.models.registry import create_model
from gliomoe.pretrain import step as steps
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.engine.engine import compile_blocks
from gliomoe.pretrain.sections import EngineConfig
from gliomoe.pretrain.train import pretrain


def run(config, name, number=5, **engine):
    """A short run with these engine options: its losses and the weights that it wrote."""
    out = config.run.out.with_name(name)
    options = {"precision": "fp32", **engine}
    config = replace(
        config,
        run=replace(config.run, out=out, steps=number),
        engine=replace(config.engine, **options),
    )
    assert pretrain(config)
    return losses(out), weights(out)


def losses(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["loss"] for line in lines], dtype=torch.float64)


def weights(out):
    return load_file(checkpoints.newest(out).folder / checkpoints.WEIGHTS)


def assert_equal(one, two):
    assert torch.equal(one[0], two[0])
    assert one[1].keys() == two[1].keys()
    assert all(torch.equal(one[1][name], two[1][name]) for name in one[1])


def test_zero_stages_give_the_same_losses(config):
    plain, _ = run(config, "zero0", zero_stage=0)
    for stage in (1, 2):
        found, _ = run(config, f"zero{stage}", zero_stage=stage)
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)


def test_accumulation_does_not_change_a_reconstruction(config):
    config = replace(config, loss=replace(config.loss, objective="mae", routing=0.0))
    whole, _ = run(config, "whole")
    parts, _ = run(config, "parts", accumulation=2)
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_recomputed_blocks_give_the_same_run_and_resume(config, killed_at, stage):
    kept = run(config, "kept", zero_stage=stage)
    assert_equal(run(config, "recomputed", zero_stage=stage, recompute=True), kept)
    with killed_at(4):
        run(config, "stopped", zero_stage=stage, recompute=True)
    assert_equal(run(config, "stopped", zero_stage=stage, recompute=True), kept)


@pytest.mark.slow
def test_compiled_blocks_take_any_number_of_tokens():
    """Four lengths of studies, equal and unequal ones: two graphs, the same result."""
    torch.manual_seed(0)
    encoder = create_model("gliomoe_tiny", depth=2, patch_size=4, experts=4).encoder
    names = list(encoder.state_dict())
    studies = [torch.randint(5, 40, (3,)).tolist() for _ in range(3)] + [[8, 8, 8]]
    plain = [through_blocks(encoder, lengths) for lengths in studies]
    compile_blocks(encoder, "eager", torch.device("cpu"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    set_recompute(encoder, True)
    for lengths, wanted in zip(studies, plain, strict=True):
        torch.testing.assert_close(through_blocks(encoder, lengths), wanted)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # dense, sparse
    assert list(encoder.state_dict()) == names


def through_blocks(encoder, lengths):
    """Output and gradient of a pack of studies."""
    generator = torch.Generator().manual_seed(sum(lengths))
    x = torch.randn(sum(lengths), 192, generator=generator, requires_grad=True)
    rotary = rotary_angles(torch.randn(sum(lengths), 3, generator=generator), 64)
    y = x
    for block in encoder.blocks:
        y, _ = block(y, rotary, lengths)
    return y.detach(), *torch.autograd.grad(y.square().sum(), x)


@pytest.mark.parametrize("stage", [1, 2])
def test_bf16_steps_on_fp32_weights_and_resumes(config, killed_at, stage):
    options = {"zero_stage": stage, "precision": "bf16", "accumulation": 2}
    plain, _ = run(config, "fp32", zero_stage=stage, accumulation=2)
    whole = run(config, "whole", **options)
    torch.testing.assert_close(whole[0], plain, rtol=0.02, atol=0)
    with killed_at(4):
        run(config, "stopped", **options)
    assert_equal(run(config, "stopped", **options), whole)
    trained = {name: tensor for name, tensor in whole[1].items() if "detail" not in name}
    assert all(tensor.dtype == torch.float32 for tensor in trained.values())
    # What is written are the optimizer's weights, not their bf16 copies.
    assert not any(
        torch.equal(tensor, tensor.bfloat16().float())
        for tensor in trained.values()
        if tensor.any()
    )


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (0, "autocast"), (1, "bf16"), (2, "bf16")]
)
def test_a_bad_gradient_changes_nothing_and_a_large_one_is_clipped(
    config, monkeypatch, stage, precision
):
    """The second of three steps is spoiled; a rate of 0 after the first would hide a step."""
    whole, number = steps.make_views, iter(range(3))

    def spoil(pairs, *settings):
        views = whole(pairs, *settings)
        if next(number) == 1:
            views.complete.voxels[views.complete.voxels != 0] = float("nan")
        return views

    monkeypatch.setattr(steps, "make_views", spoil)
    config = replace(config, optim=replace(config.optim, clip=1e-3))
    _, after = run(config, "spoiled", 3, zero_stage=stage, precision=precision)
    lines = (config.run.out.with_name("spoiled") / "metrics.jsonl").read_text().splitlines()
    norms = [json.loads(line)["norm"] for line in lines]
    assert norms[1] is None
    assert min(norms[0], norms[2]) > 1  # before clipping
    assert all(torch.isfinite(tensor).all() for tensor in after.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zero_stage": 3}, "engine.zero_stage must be 0, 1 or 2, not 3: stage 3"),
        ({"zero_stage": 0, "precision": "bf16"}, "engine.precision bf16 needs engine.zero_stage 1"),
    ],
)
def test_options_that_exclude_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        EngineConfig(**options)


def test_a_compiler_that_does_not_work_is_named(config):
    with pytest.raises(UsageError, match="engine.compile nonsense does not work here"):
        run(config, "run", compile="nonsense")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--engine.zero_stage", "3"), "stage 3 cuts single weights"),
        (("--model.decoder_width", "96"), "model.decoder_width (96) must be a multiple of 64"),
        (("--model.set", "heads=5"), "width 192: must be an even multiple of heads (5)"),
        (("--engine.expert_parallel", "3"), "must divide the experts of a mixture (2)"),
        (("--model.experts", "1", "--engine.expert_parallel", "2"), "needs mixtures of experts"),
    ],
)
def test_what_cannot_divide_is_refused_in_one_line(config, capsys, given, message):
    command = ["pretrain", "smoke", "--data.train", config.data.train[0]]
    assert main([*command, "--run.out", str(config.run.out), *given]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said and "fault of GlioMoE" not in said
    assert not config.run.out.exists()

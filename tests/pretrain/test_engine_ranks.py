"""Two processes: ZeRO stages agree, and experts shared out among them change nothing."""

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.build import build
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.checkpoints.fit import check_fit
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.sections import (
    DataConfig,
    EngineConfig,
    LossConfig,
    ModelConfig,
    MonitorConfig,
    OptimConfig,
    RunConfig,
    ViewConfig,
)


def torchrun(runs, folder):
    """Run configurations on two processes, in one start."""
    (folder / "runs").write_bytes(pickle.dumps(runs))
    script = Path(__file__).with_name("ranked_runs.py")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            str(script), str(folder / "runs"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=400)
        assert process.returncode == 0, said[-3000:]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def curve(run, name):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)[name] for line in lines], dtype=torch.float64)


def weights(run):
    return load_file(checkpoints.newest(run).folder / checkpoints.WEIGHTS)


TEACHERS = {"ema": ("mae+contrast", 0.9), "jepa": ("jepa", 0.0)}
"""Name → objective and decay; both keep a running mean of the encoder."""


def planned():
    """Name, options of the engine, of the objective, and the step at which it ends abruptly."""
    usual = ("mae+contrast", 0.0)
    for stage in (0, 1, 2):
        shared = {"zero_stage": stage, "expert_parallel": 2}
        yield f"zero{stage}", {"zero_stage": stage}, usual, None
        yield f"shared{stage}", shared, usual, None
        yield f"broken{stage}", {**shared, "recompute": True}, usual, 3
        yield f"broken{stage}", {**shared, "recompute": True}, usual, None
    for name, about in TEACHERS.items():
        yield name, {}, about, None
        yield f"{name}_shared", {"expert_parallel": 2}, about, None


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    """Folders of the runs by name, all made by the same two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    torchrun(
        [
            (
                PretrainConfig(
                    data=DataConfig(train=(str(shards),), workers=0),
                    run=RunConfig(out=folder / name, steps=4, checkpoint_every=2),
                    model=ModelConfig(patch_size=4, experts=4, decoder_width=64, decoder_depth=1),
                    views=ViewConfig(size=16, shift=4),
                    augment=AugmentConfig(elastic_sigma=6),
                    # Steps of a clipped size, so that a wrong norm shows.
                    optim=OptimConfig(batch=4, lr=1e-3, warmup=1, clip=0.5, ema=decay),
                    loss=LossConfig(objective=objective),
                    engine=EngineConfig(precision="fp32", **options),
                    monitor=MonitorConfig(log_every=4, pictures_every=2),
                ),
                stop,
            )
            for name, options, (objective, decay), stop in planned()
        ],
        folder,
    )
    return {name: folder / name for name, *_ in planned()}


@pytest.mark.slow
def test_zero_stages_agree_on_two_ranks(runs):
    for stage in (1, 2):
        found, plain = (curve(runs[name], "loss") for name in (f"zero{stage}", "zero0"))
        torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_shared_experts_change_nothing(runs, stage):
    plain, shared = runs[f"zero{stage}"], runs[f"shared{stage}"]
    for name in ("loss", "norm", "routing"):
        torch.testing.assert_close(curve(shared, name), curve(plain, name), rtol=1e-5, atol=0)
    assert curve(shared, "routing")[0] == curve(plain, "routing")[0]  # the very same choices
    own, whole = weights(shared), weights(plain)
    assert own.keys() == whole.keys()
    for name in whole:
        # AdamW's first steps have the size of the rate whatever the gradient's: rounding shows.
        torch.testing.assert_close(own[name], whole[name], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_a_running_mean_follows_shared_experts(runs, name):
    plain, shared = weights(runs[name]), weights(runs[f"{name}_shared"])
    assert plain.keys() == shared.keys()
    means = [key for key in plain if ".experts." in key and ".module." in key]
    assert means
    for key in plain:
        torch.testing.assert_close(shared[key], plain[key], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_shared_experts_resume_bit_equal(runs, stage):
    """Blocks that compute twice exchange their tokens twice, with the same result."""
    shared, broken = runs[f"shared{stage}"], runs[f"broken{stage}"]
    assert torch.equal(curve(shared, "loss"), curve(broken, "loss"))
    own, other = weights(shared), weights(broken)
    assert all(torch.equal(own[name], other[name]) for name in own)


@pytest.mark.slow
def test_a_checkpoint_of_shared_experts_is_like_any_other(runs, config):
    model, objective = build(replace(config, model=replace(config.model, experts=4)))
    objective.load_state_dict(weights(runs["shared1"]))
    checkpoint = checkpoints.newest(runs["shared1"])
    about = {**checkpoint.manifest, "expert_parallel": 1}
    with pytest.raises(UsageError, match=r"written with engine.expert_parallel 2, this run has 1"):
        check_fit(checkpoint, about)
    with pytest.raises(UsageError, match="processes 2, this run has 4"):
        check_fit(checkpoint, {**checkpoint.manifest, "zero_stage": 1, "world": 4})


@pytest.mark.parametrize(
    ("experts", "shared", "message"),
    [
        (1, 2, "needs mixtures of experts, and gliomoe_tiny has none here"),
        (4, 3, r"engine.expert_parallel \(3\) must divide the experts of a mixture \(4\)"),
    ],
)
def test_experts_that_cannot_be_shared_are_refused(config, experts, shared, message):
    engine = replace(config.engine, expert_parallel=shared)
    with pytest.raises(UsageError, match=message):
        build(replace(config, engine=engine, model=replace(config.model, experts=experts)))


def test_processes_that_do_not_divide_are_refused(config):
    config = replace(config, engine=replace(config.engine, expert_parallel=2))
    with pytest.raises(UsageError, match=r"must divide the number of processes \(3\)"):
        config.micro_batch(3)
    assert config.micro_batch(4) == 1


@pytest.mark.parametrize("options", [{"compile": "aot_eager"}, {"precision": "bf16"}])
def test_options_that_shared_experts_exclude(options):
    with pytest.raises(ValueError, match="exclude each other"):
        EngineConfig(expert_parallel=2, **options)

"""Whole runs: exact resume, interruption, loss that is not finite, export."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main
from gliomoe.pretrain import step as steps
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.export import export
from gliomoe.pretrain.faults.damaged import DAMAGED
from gliomoe.pretrain.train import pretrain


def losses(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run):
    return load_file(checkpoints.newest(run).folder / checkpoints.WEIGHTS)


def assert_same_run(one, two):
    assert losses(one) == losses(two)
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def elsewhere(config, name):
    return replace(config, run=replace(config.run, out=config.run.out.with_name(name)))


@pytest.mark.parametrize(("stage", "accumulation"), [(0, 1), (1, 2), (2, 1)])
def test_a_killed_run_continues_bit_equal(config, killed_at, stage, accumulation):
    engine = replace(config.engine, zero_stage=stage, accumulation=accumulation)
    config = replace(config, engine=engine)
    assert pretrain(config)
    broken = elsewhere(config, "broken")
    for step in (5, 8):
        with killed_at(step):
            pretrain(broken)
    assert checkpoints.newest(broken.run.out).step == 6
    assert pretrain(broken)
    assert_same_run(config.run.out, broken.run.out)


def test_the_routers_biases_move_and_are_resumed(config, killed_at):
    config = replace(config, model=replace(config.model, experts=4, set=("router_bias=true",)))
    assert pretrain(config)
    broken = elsewhere(config, "broken")
    with killed_at(5):
        pretrain(broken)
    assert pretrain(broken)
    assert_same_run(config.run.out, broken.run.out)
    biases = [tensor for name, tensor in weights(config.run.out).items() if "router.bias" in name]
    assert biases and all(bias.any() for bias in biases)
    assert max(float(bias.abs().max()) for bias in biases) < 10.5 * config.optim.bias_rate


def test_a_loss_that_is_not_finite_skips_the_step(config, monkeypatch, caplog):
    whole = steps.make_views

    def spoil(pairs, *settings):
        views = whole(pairs, *settings)
        if loop_step[0] in (2, 3):
            views.complete.voxels[views.complete.voxels != 0] = float("nan")
        loop_step[0] += 1
        return views

    loop_step = [0]
    monkeypatch.setattr(steps, "make_views", spoil)
    pretrain(config)
    norms = [entry["norm"] for entry in losses(config.run.out)]
    assert [step for step, norm in enumerate(norms) if norm is None] == [2, 3]
    assert all(torch.isfinite(weight).all() for weight in weights(config.run.out).values())
    assert "step 2 skipped" in caplog.text
    assert "case-" in caplog.text

    loop_step = [0]
    strict = elsewhere(config, "strict")
    with pytest.raises(DataError, match="2 steps in a row .* case-"):
        pretrain(replace(strict, health=replace(strict.health, bad_steps=2)))


def test_damaged_studies_are_counted_and_stood_in_for(config, tmp_path, caplog):
    (folder,) = config.data.train
    copy = shutil.copytree(folder, tmp_path / "copy")
    for i in (2, 5):
        name, place = ShardSet.open(copy).place(i)
        with open(name, "r+b") as shard:
            shard.seek(place.offset)
            shard.write(b"x" * 512)
    config = replace(config, data=replace(config.data, train=(str(copy),), workers=1))
    assert pretrain(config)
    lines = losses(config.run.out)
    # 40 samples are five epochs of the eight studies.
    assert sum(line.get("damaged", 0) for line in lines) == caplog.text.count("left out: ") >= 10
    assert all(line["norm"] is not None for line in lines)
    named = [json.loads(line) for line in (config.run.out / DAMAGED).read_text().splitlines()]
    assert sorted(line["what"].partition("study ")[2][:2] for line in named) == ["2:", "5:"]
    assert "2 damaged studies left out" in caplog.text
    export(config.run.out, tmp_path / "checkpoint")


def test_a_finished_run_is_left_alone(config, caplog):
    assert pretrain(config)  # not interrupted by a signal to the tests, which it takes for its own
    before = checkpoints.newest(config.run.out).folder.stat().st_mtime_ns
    caplog.set_level("INFO")
    assert pretrain(config)
    assert "finished at step 10" in caplog.text
    assert checkpoints.newest(config.run.out).folder.stat().st_mtime_ns == before
    kept = sorted(folder.name for folder in (config.run.out / "checkpoints").glob("step_*"))
    assert kept == ["step_10", "step_9"]


def test_a_damaged_checkpoint_is_passed_over(config, caplog):
    pretrain(config)
    newest = checkpoints.newest(config.run.out).folder
    with (newest / checkpoints.WEIGHTS).open("r+b") as file:
        file.truncate(100)
    assert checkpoints.newest(config.run.out).step == 9
    assert "step_10: damaged" in caplog.text


def test_what_does_not_fit_is_refused(config):
    with pytest.raises(UsageError, match=r"must be a multiple of 8, the stride of gliomoe_tiny"):
        model = replace(config.model, patch_size=None)
        pretrain(replace(config, model=model, views=replace(config.views, size=20)))
    with pytest.raises(UsageError, match="multiple of processes"):
        config.micro_batch(3)
    with pytest.raises(ValueError, match="multiple of engine.accumulation"):
        replace(config, engine=replace(config.engine, accumulation=3))


def command(config, *more):
    return [
        "pretrain", "smoke", "--data.train", str(config.data.train[0]), "--run.out",
        str(config.run.out), "--data.workers", "1", "--engine.precision", "fp32", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_sigterm_and_sigkill_then_continue(config, capsys):
    """Two sub-processes are ended in the middle; the third finishes as if nothing had been."""
    undisturbed = elsewhere(config, "undisturbed")
    assert main(command(undisturbed)) == 0
    for number, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
        done = len(losses(config.run.out)) if (config.run.out / "metrics.jsonl").is_file() else 0
        process = subprocess.Popen(
            [sys.executable, "-m", "gliomoe", *command(config, "--run.checkpoint_every", "2")],
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in process.stderr:
            if f"step {done + 5}/" in line or f"step {done // 5 * 5 + 5}/" in line:
                process.send_signal(number)
                break
        process.stderr.read()
        assert process.wait() == code
    assert 0 < checkpoints.newest(config.run.out).step < 20
    assert main(command(config, "--run.checkpoint_every", "2")) == 0
    assert_same_run(undisturbed.run.out, config.run.out)


def test_the_folder_of_another_run_is_refused(config, capsys):
    config.run.out.mkdir()
    (config.run.out / "notes.txt").write_text("mine")
    assert main(command(config)) == 2
    assert "not empty and not a run" in capsys.readouterr().err
    assert main(["pretrain", "smoke", "--data.train", "nowhere", "--run.out", "x"]) == 2
    assert "nowhere: not a finished shard set" in capsys.readouterr().err
    assert main(["pretrain", "smokey", "--run.out", "x"]) == 2
    assert "presets: " in capsys.readouterr().err


def test_shards_that_changed_since_the_folder_was_claimed_are_refused(
    config, monkeypatch, capsys, tmp_path, write_set
):
    begun = []
    monkeypatch.setattr("gliomoe.pretrain.train.pretrain", lambda *args, **more: begun.append(1))
    folder = write_set(tmp_path / "set", 8)
    config = replace(config, data=replace(config.data, train=(str(folder),)))
    for _ in range(2):
        main(command(config))
    shutil.rmtree(folder)
    write_set(folder, 9)
    capsys.readouterr()
    assert main(command(config)) == 2
    said = capsys.readouterr().err
    assert f"{config.run.out}: the shards changed since this run began; bring them back" in said
    assert len(begun) == 2


def test_run_json_records_the_data(config, monkeypatch):
    monkeypatch.setattr("gliomoe.pretrain.train.pretrain", lambda *args, **more: True)
    assert main(command(config)) == 0
    (folder,) = config.data.train
    assert json.loads((config.run.out / "run.json").read_text())["data"] == {
        "paths": [str(Path(folder).resolve())],
        "fingerprint": ShardSet.open(folder).fingerprint,
        "studies": 8,
        "order": {"reader": "indexed", "weights": [], "block": 0, "window": 0},
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--loss.objective", "nope"), "unknown loss.objective 'nope'"),
        (("--model.name", "gliomoe_huge"), "unknown model 'gliomoe_huge'"),
        (("--data.order.weights", "1", "2"), "2 weights for 1 shard sets"),
        (("--data.order.block", "2", "--optim.batch", "9"), "8 studies are too few for a batch"),
        (("--views.size", "18"), "views.size (18) must be a multiple of model.patch_size (4)"),
    ],
)
def test_what_cannot_be_built_leaves_nothing(config, capsys, more, message):
    assert main(command(config, *more)) == 2
    assert message in capsys.readouterr().err
    assert not config.run.out.exists()


def test_export_is_a_checkpoint_folder(config, tmp_path, capsys):
    from gliomoe.models.checkpoint import load_checkpoint, read_config

    pretrain(config)
    out = tmp_path / "published"
    assert main(["export", str(config.run.out), "--out", str(out)]) == 0
    encoder = load_checkpoint(out).encoder.state_dict()
    trained = weights(config.run.out)
    seen = ("t1", "t1ce", "t2", "flair")
    for name, value in encoder.items():
        if not name.endswith("by_sequence"):  # unseen sequences take the weights of `other`
            assert torch.equal(value, trained[f"encoder.{name}"]), name
    about = read_config(out)
    assert about["training"]["steps"] == 10
    assert about["training"]["studies_read"] == 40
    assert set(about["sequences"]) == set(seen)
    prints = Seen.read(out / "pretraining_fingerprints.bin")
    assert prints.contents == {bytes.fromhex(f"{n + 1:032x}") for n in range(8)}
    assert {signature[0] for signature in prints.signatures} == {0, 1, 2, 3}
    assert main(["export", str(config.run.out), "--out", str(out)]) == 0  # the same again
    (out / "README.md").write_text("another model")
    assert main(["export", str(config.run.out), "--out", str(out)]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert (out / "README.md").read_text() == "another model"
    assert main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "o")]) == 2

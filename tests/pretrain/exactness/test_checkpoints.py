"""Checkpoints: whole or not there, checked by content, kept as told, on a disk with room."""

import errno
import json
import os
import shutil
import subprocess
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.pretrain.checkpoints import files
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.checkpoints.fit import check_fit
from gliomoe.pretrain.engine.engine import Engine
from gliomoe.pretrain.train import pretrain

Usage = namedtuple("Usage", "total used free")


def kept(config):
    return sorted(entry.name for entry in (config.run.out / "checkpoints").iterdir())


def with_run(config, **changes):
    return replace(config, run=replace(config.run, **changes))


def with_engine(config, **changes):
    return replace(config, engine=replace(config.engine, **changes))


@pytest.fixture
def finished(config):
    """A run of four steps with checkpoints of the steps 2 and 4."""
    config = with_run(config, steps=4, checkpoint_every=2)
    assert pretrain(config)
    return config


def spoil(path):
    """Change one byte in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("pattern", ["weights.safetensors", "engine/*optim*", "engine/gener*"])
def test_other_content_of_the_same_size_is_found(finished, caplog, trace, pattern):
    before = trace(finished.run.out)
    newest = finished.run.out / "checkpoints/step_4"
    spoil(next(newest.glob(pattern)))
    assert checkpoints.newest(finished.run.out).step == 2
    assert "step_4: damaged, " in caplog.text
    assert "has other content than was written" in caplog.text
    assert pretrain(finished)
    assert trace(finished.run.out) == before
    assert checkpoints.newest(finished.run.out).step == 4


def test_a_copy_under_another_name_is_let_be(finished):
    newest = finished.run.out / "checkpoints/step_4"
    copy = shutil.copytree(newest, newest.with_name("step_4.bak"))
    assert pretrain(with_run(finished, steps=6))
    assert kept(finished) == ["latest", "step_4", copy.name, "step_6"]


def test_missing_files_and_manifests_are_found(finished, caplog):
    (finished.run.out / "checkpoints/step_4" / checkpoints.WEIGHTS).unlink()
    assert checkpoints.newest(finished.run.out).step == 2
    assert "weights.safetensors is missing" in caplog.text
    (finished.run.out / "checkpoints/step_2" / checkpoints.MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="all checkpoints are damaged"):
        pretrain(finished)


def test_every_file_is_described(finished):
    folder = finished.run.out / "checkpoints/step_4"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    manifest = json.loads((folder / checkpoints.MANIFEST).read_text())
    assert found == {*manifest["files"], checkpoints.MANIFEST}


def test_the_run_goes_on_from_what_latest_names(finished, trace):
    before = trace(finished.run.out)
    pointer = finished.run.out / "checkpoints/latest"
    pointer.write_text("step_2")
    assert checkpoints.newest(finished.run.out).step == 2
    pointer.write_text("")  # a power failure on a file system that keeps no order
    assert checkpoints.newest(finished.run.out).step == 4
    pointer.write_text("step_2")
    assert pretrain(finished)
    assert trace(finished.run.out) == before


def test_the_last_and_every_nth_are_kept(config):
    config = with_run(config, steps=9, checkpoint_every=1, keep=2, keep_every=4)
    assert pretrain(config)
    assert kept(config) == ["latest", "step_4", "step_8", "step_9"]


def kill_while_saving(broken, monkeypatch, where):
    """Run until the second checkpoint, and end as if killed when a function is called for it."""
    owner = Path if where == "rename" else checkpoints
    whole = getattr(owner, where)

    def killed(*args, **kwargs):
        if any("step_4" in str(arg) for arg in args) or (
            where in ("atomic_write", "_drop") and (broken.run.out / "checkpoints/step_4").exists()
        ):
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, where, killed)
        pretrain(broken)


def test_a_run_killed_anywhere_in_saving_has_a_whole_latest(config, monkeypatch, trace):
    config = with_run(config, steps=6, checkpoint_every=2)
    assert pretrain(config)
    for where in ("settle", "write_json", "rename", "atomic_write", "_drop"):
        broken = with_run(config, out=config.run.out.with_name(where))
        kill_while_saving(broken, monkeypatch, where)
        assert checkpoints.newest(broken.run.out).step == (4 if where == "_drop" else 2)
        assert pretrain(broken)
        assert trace(broken.run.out) == trace(config.run.out)
        assert kept(broken) == ["latest", "step_4", "step_6"]


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("target", ["torch.save", "gliomoe.pretrain.checkpoints.store.save_file"])
def test_a_disk_that_fills_up_costs_no_checkpoint(finished, monkeypatch, target):
    config = with_run(finished, steps=8)
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(DataError, match=r"step_6: process 0 could not write it .*No space"):
            pretrain(config)
    assert kept(config) == ["latest", "step_2", "step_4"]
    assert pretrain(config)
    assert kept(config) == ["latest", "step_6", "step_8"]


def test_no_step_is_taken_where_no_checkpoint_fits(config, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 1000))
    with pytest.raises(DataError, match=r"run/checkpoints: a checkpoint needs .* MB, 0\.0 MB are"):
        pretrain(config)
    assert not config.run.out.exists()


def test_the_oldest_makes_room_but_never_the_last(finished, monkeypatch):
    """The disk has room for so many checkpoints that one more fits only without the oldest."""
    config = with_run(finished, steps=8)
    folder = config.run.out / "checkpoints"
    size = sum(path.stat().st_size for path in (folder / "step_4").rglob("*") if path.is_file())
    room = [2.5 * size]

    def usage(path):
        used = sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
        return Usage(room[0], used, room[0] - used)

    monkeypatch.setattr(files.shutil, "disk_usage", usage)
    assert pretrain(config)
    assert kept(config) == ["latest", "step_6", "step_8"]
    room[0] = 1.5 * size
    with pytest.raises(DataError, match="free space, the same command continues"):
        pretrain(with_run(finished, steps=12))
    assert kept(config) == ["latest", "step_8"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_real_disk_that_fills_up(config, small_disk, monkeypatch):
    config = with_run(config, out=small_disk / "run", steps=2, checkpoint_every=2)
    assert pretrain(config)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - (20 << 20)))
    config = with_run(config, steps=4)
    with pytest.raises(DataError, match="a checkpoint needs .* are free; free space"):
        pretrain(config)
    monkeypatch.setattr(checkpoints, "check_room", lambda folder, need: None)
    with pytest.raises(DataError, match="process 0 could not write it .* free space or mend"):
        pretrain(config)
    assert kept(config) == ["latest", "step_2"]
    ballast.unlink()
    assert pretrain(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulation": 2}, "engine.accumulation 1, this run has 2; continue it with 1"),
        ({"zero_stage": 0}, "engine.zero_stage 1, this run has 0; continue it with 1"),
    ],
)
def test_what_cannot_be_taken_up_is_refused(finished, change, message):
    with pytest.raises(UsageError, match=message):
        pretrain(with_engine(with_run(finished, steps=6), **change))
    assert kept(finished) == ["latest", "step_2", "step_4"]


@pytest.mark.parametrize("about", [{"batch_norm": True}, {"expert_parallel": 2}])
def test_the_number_of_processes_can_matter(about):
    same = {"accumulation": 1, "zero_stage": 1, "expert_parallel": 1, "batch_norm": False, **about}
    found = checkpoints.Checkpoint(Path("run/checkpoints/step_2"), {**same, "world": 2})
    with pytest.raises(UsageError, match="the number of processes 2, this run has 4"):
        check_fit(found, {**same, "world": 4})


def test_other_versions_and_precision_are_told(finished, caplog):
    found = checkpoints.newest(finished.run.out)
    about = {**found.manifest, "precision": "autocast", "versions": {"torch": "9", "deepspeed": ""}}
    check_fit(found, about)
    assert "with precision autocast after fp32" in caplog.text
    assert f"with torch 9 after {found.manifest['versions']['torch']}" in caplog.text


def test_shards_that_changed_are_refused(finished, tmp_path, write_set):
    other = write_set(tmp_path / "other", 9)
    config = replace(finished, data=replace(finished.data, train=(str(other),)))
    with pytest.raises(UsageError, match="the shards changed since this run began"):
        pretrain(with_run(config, steps=6))


def test_another_stage_of_zero_is_converted(config, monkeypatch, trace):
    """Buffers and frozen weights too, which DeepSpeed's conversion leaves out."""
    model = replace(config.model, experts=4, set=("router_bias=true",))
    config = with_run(replace(config, model=model), steps=6, checkpoint_every=3, keep=9)
    assert pretrain(config)
    before = trace(config.run.out)
    shutil.rmtree(config.run.out / "checkpoints/step_6")
    seen = {}
    load = Engine.load

    def noted(engine, folder, converted=None):
        load(engine, folder, converted)
        seen["converted"] = converted
        seen["state"] = {n: v.clone() for n, v in engine.module.state_dict().items()}

    monkeypatch.setattr(Engine, "load", noted)
    assert pretrain(with_engine(config, zero_stage=2))
    assert seen["converted"] is not None
    saved = load_file(config.run.out / "checkpoints/step_3" / checkpoints.WEIGHTS)
    assert saved.keys() == seen["state"].keys()
    assert all(torch.equal(seen["state"][name], value) for name, value in saved.items())
    for first, second in zip(before, trace(config.run.out), strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
        assert second["norm"] == pytest.approx(first["norm"], rel=1e-5)
    assert kept(config) == ["latest", "step_3", "step_6"]

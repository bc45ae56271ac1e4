"""Builds and merges killed at random moments, and on a full disk: the same command finishes."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from gliomoe.data_shards import files
from gliomoe.launch.cli import main

COMMAND = [sys.executable, "-m", "gliomoe", "shards"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, make_case):
    """Twelve cases, one of them damaged."""
    folder = tmp_path_factory.mktemp("killed") / "cohort"
    for number in range(12):
        make_case(folder, number, ("t1", "t2"))
    path = folder / "Case_05" / "Case_05_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:2000])
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def build(cohort, out, *more):
    args = ["--out", str(out), "--keep-ids", "True", "--shard-mb", "0.1"]
    return ["build", str(cohort), *args, *map(str, more)]


def kill_until_done(args, out, rng, kills):
    """Start a command again and again, killed after a random time since it began to write."""
    for _ in range(kills):
        seen = stamp(out)
        child = subprocess.Popen([*COMMAND, *args], stderr=subprocess.DEVNULL)
        while stamp(out) == seen and child.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
    return subprocess.run([*COMMAND, *args], stderr=subprocess.DEVNULL).returncode


def stamp(out):
    return out.stat().st_mtime_ns if out.exists() else 0


@pytest.mark.slow
def test_builds_and_merges_killed_at_random(cohort, tmp_path):
    assert main(["shards", *build(cohort, tmp_path / "whole")]) == 1
    rng = random.Random(0)
    out = tmp_path / "set"
    assert kill_until_done(build(cohort, out, "--workers", 2), out, rng, 5) == 1
    assert content(out) == content(tmp_path / "whole")
    parts = []
    for part in (1, 2):
        parts.append(tmp_path / f"part{part}")
        assert main(["shards", *build(cohort, parts[-1], "--part", f"{part}/2")]) in (0, 1)
    out = tmp_path / "merged"
    assert kill_until_done(["merge", *map(str, parts), "--out", str(out)], out, rng, 4) == 1
    assert content(out) == content(tmp_path / "whole")


def test_a_full_disk(cohort, tmp_path, small_disk, capsys):
    disk = small_disk("256k")
    assert main(["shards", *build(cohort, tmp_path / "whole")]) == 1
    out = disk / "set"
    assert main(["shards", *build(cohort, out)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert f"{out}/shard-00000" in line and "no space left on device; free space" in line
    assert not [path for path in out.iterdir() if path.suffix == ".tmp"]
    assert not (out / "dataset.json").exists()
    whole = content(out)
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    assert main(["shards", *build(cohort, out)]) == 1
    assert content(out) == content(tmp_path / "whole")
    for name, data in whole.items():
        assert content(out)[name] == data


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", range(6))
def test_no_space_at_any_write(cohort, tmp_path, monkeypatch, capsys, number, call):
    calls, fsync = iter(range(100)), os.fsync

    def full(handle):
        if next(calls) == call:
            raise OSError(number, os.strerror(number))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert main(["shards", *build(cohort / "Case_00", tmp_path / "set")]) == int(call < 5)
    assert ("free space and repeat" in capsys.readouterr().err) == (call < 5)
    assert main(["shards", *build(cohort / "Case_00", tmp_path / "set")]) == 0
    assert main(["shards", "verify", str(tmp_path / "set")]) == 0

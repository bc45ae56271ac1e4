"""A study that failed is tried again by the same command: the bytes of a build from the start."""

import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from gliomoe.data_shards.building import build as build_module
from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.format.writer import write_shard
from gliomoe.data_shards.parallel import ordered_map

KEEP = BuildConfig(keep_ids=True, shard_mb=0.05)
DIES = "__import__('os')._exit(9)"


@pytest.fixture(scope="module")
def good(tmp_path_factory, make_case):
    """Six cases, and the set of all of them."""
    root = tmp_path_factory.mktemp("good")
    for number in range(6):
        make_case(root / "cohort", number, ("t1", "t2"))
    build_shards([root / "cohort"], root / "set", KEEP)
    return root


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def damage(cohort, numbers):
    for number in numbers:
        path = cohort / f"Case_{number:02d}" / f"Case_{number:02d}_t2.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])


def repair(cohort, good, numbers):
    for number in numbers:
        shutil.copytree(
            good / "cohort" / f"Case_{number:02d}",
            cohort / f"Case_{number:02d}",
            dirs_exist_ok=True,
        )


@pytest.mark.parametrize("bad", [(0,), (2,), (5,), (1, 4), (0, 1, 2, 3, 4)], ids=str)
def test_repaired_studies_join_the_set(good, tmp_path, bad):
    cohort, out = tmp_path / "cohort", tmp_path / "set"
    shutil.copytree(good / "cohort", cohort)
    damage(cohort, bad)
    assert len(build_shards([cohort], out, KEEP).failed) == len(bad)
    first = content(out)
    assert len(build_shards([cohort], out, KEEP).failed) == len(bad)
    assert content(out) == first
    for number in bad:
        repair(cohort, good, [number])
        assert build_shards([cohort], out, KEEP).built == 1
    assert content(out) == content(good / "set")


def test_only_the_repaired_study_is_prepared(good, tmp_path, monkeypatch):
    cohort, out = tmp_path / "cohort", tmp_path / "set"
    shutil.copytree(good / "cohort", cohort)
    damage(cohort, [1])
    build_shards([cohort], out, KEEP)
    repair(cohort, good, [1])
    prepared, prepare = [], build_module.prepare
    monkeypatch.setattr(
        build_module, "prepare", lambda job: prepared.append(job.raw.subject) or prepare(job)
    )
    build_shards([cohort], out, KEEP)
    assert set(prepared) == {"Case_01"}
    assert content(out) == content(good / "set")


@pytest.mark.parametrize("shard", [0, 1, 2])
def test_a_rewrite_that_is_cut_short(good, tmp_path, monkeypatch, shard):
    cohort, out = tmp_path / "cohort", tmp_path / "set"
    shutil.copytree(good / "cohort", cohort)
    damage(cohort, [0, 4])
    build_shards([cohort], out, KEEP)
    repair(cohort, good, [4] if shard == 1 else [0, 4])

    def stop(path, studies, limit):
        if path.name == f"shard-{shard:06d}.tar":
            raise KeyboardInterrupt
        return write_shard(path, studies, limit)

    with monkeypatch.context() as patch:
        patch.setattr("gliomoe.data_shards.format.writer.write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            build_shards([cohort], out, KEEP)
    repair(cohort, good, [0])
    build_shards([cohort], out, KEEP)
    assert content(out) == content(good / "set")


def test_a_shard_that_rotted_is_not_copied(good, tmp_path):
    cohort, out = tmp_path / "cohort", tmp_path / "set"
    shutil.copytree(good / "cohort", cohort)
    damage(cohort, [0])
    build_shards([cohort], out, KEEP)
    path = out / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1  # in a frame
    path.write_bytes(data)
    repair(cohort, good, [0])
    build_shards([cohort], out, KEEP)
    assert content(out) == content(good / "set")


@pytest.mark.parametrize("deadly", [[0], [2, 3], [7], range(8)], ids=str)
def test_a_job_that_ends_its_worker(deadly):
    jobs = [DIES if n in deadly else str(n) for n in range(8)]
    found = list(ordered_map(eval, jobs, 2, died=lambda job: "died"))
    assert found == ["died" if n in deadly else n for n in range(8)]
    with pytest.raises(DataError, match="a worker process died"):
        list(ordered_map(eval, jobs, 2))


def test_no_worker_is_started_while_a_job_may_end_another(monkeypatch):
    spawn = ProcessPoolExecutor._spawn_process

    def slow(pool):
        if pool._processes:
            time.sleep(0.5)  # long enough for a job to end the first one
        spawn(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", slow)
    assert list(ordered_map(eval, [DIES, "1"], 2, died=lambda job: "died")) == ["died", 1]


@pytest.mark.slow
def test_a_study_that_ends_its_worker_is_left_out(good, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(
        "import os, signal\n"
        "from gliomoe.data_shards.building.prepare import prepare as usual\n"
        "def prepare(job):\n"
        "    if job.raw.subject == 'Case_03': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return usual(job)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import deadly

    assert deadly.prepare.__module__ in sys.modules and os.path.exists(deadly.__file__)
    config = BuildConfig(keep_ids=True, shard_mb=0.05, workers=2)
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "prepare", deadly.prepare)
        report = build_shards([good / "cohort"], tmp_path / "set", config)
    (failure,) = report.failed
    assert failure.key == "case_03" and "process died, perhaps for want of memory" in failure.reason
    assert report.info["studies"] == 5
    assert build_shards([good / "cohort"], tmp_path / "set", KEEP).built == 1
    assert content(tmp_path / "set") == content(good / "set")

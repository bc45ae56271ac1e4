"""Shard sets on a web server and in S3: equal to local ones, through faults, caches and copies."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from gliomoe.data_shards.building.verify import verify
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.data_shards.storage.store import open_store
from gliomoe.launch.cli import main

SHARD = "shard-000000.tar"


def assert_equal(remote, local):
    assert [remote.entry(i) for i in range(len(remote))] == [
        local.entry(i) for i in range(len(local))
    ]
    for i in range(len(local)):
        assert bytes(remote.bytes_of(i)) == bytes(local.bytes_of(i))
    a, b = (shards.read(2, (-3, 5, 7), (20, 33, 16)) for shards in (remote, local))
    np.testing.assert_array_equal(a.voxels, b.voxels)
    np.testing.assert_array_equal(a.seg, b.seg)


def test_equal_to_local(served, storage):
    door, url, folder = served
    local = ShardSet.open(folder)
    remote = ShardSet.open(url, storage=storage)
    assert_equal(remote, local)
    # A few large requests, not a small one for each block: at most one a study.
    assert sum(path.endswith(".tar") for path in door.seen) <= 7
    assert remote.fingerprint == local.fingerprint
    both = ShardSet.open(folder, url, storage=storage)
    np.testing.assert_array_equal(both.read(10).voxels, local.read(3).voxels)


def test_commands_take_urls(served, storage, capsys, monkeypatch, tmp_path):
    _, url, folder = served
    monkeypatch.setenv("GLIOMOE_CACHE", str(tmp_path / "home"))
    assert main(["shards", "verify", url]) == 0
    assert "7 studies in" in capsys.readouterr().out
    assert main(["shards", "inspect", url, "case-0003", "--json", "True"]) == 0
    stored = json.loads(capsys.readouterr().out)["stored"]["shard"]
    assert stored.startswith(f"{url}/shard-")
    assert main(["shards", "inspect", f"{url}/nothing"]) == 2
    assert "not a finished shard set" in capsys.readouterr().err


def test_verify_names_damage(web, shard_set, storage, monkeypatch, tmp_path):
    monkeypatch.setenv("GLIOMOE_CACHE", str(tmp_path / "home"))
    folder, _ = shard_set
    _, place = ShardSet.open(folder).place(1)
    content = bytearray((folder / SHARD).read_bytes())
    content[place.offset + place.length // 2] ^= 1
    (folder / SHARD).write_bytes(content)
    (folder / "shard-000001.tar").unlink()
    damage = verify(f"{web.url}/{folder.name}").damage
    assert [found.key for found in damage] == ["case-0001", "case-0002", "case-0003"]
    assert "missing" in damage[1].reason


@pytest.mark.parametrize("fault", [500, 503, "cut", "stall", "slow"])
def test_a_fault_that_passes(served, storage, fault):
    door, url, folder = served
    for name in ("dataset.json", "index.npy", SHARD):
        door.faults[name] = [fault] if fault == "slow" else [fault, fault]
    storage = replace(storage, timeout=0.5 if fault == "stall" else 20)
    assert_equal(ShardSet.open(url, storage=storage), ShardSet.open(folder))
    assert not any(door.faults.values())


@pytest.mark.parametrize("fault", [500, "cut", "stall"])
def test_a_fault_for_good(web, shard_set, storage, fault):
    url = f"{web.url}/{shard_set[0].name}"
    storage = replace(storage, timeout=0.5 if fault == "stall" else 20)
    shards = ShardSet.open(url, storage=storage)
    web.always[SHARD] = fault
    with pytest.raises(DataError, match=f"{url}/{SHARD}: 3 attempts failed.*start again"):
        shards.read(0)
    assert web.count(SHARD) == 3
    assert shards.read(2).key == "case-0002"
    web.always["dataset.json"] = fault
    with pytest.raises(DataError, match="dataset.json: 3 attempts failed"):
        ShardSet.open(url, storage=storage)


def test_no_server(storage):
    with pytest.raises(DataError, match="3 attempts failed"):
        ShardSet.open("http://127.0.0.1:9/set", storage=storage)


@pytest.mark.parametrize(
    ("status", "message"), [(401, "credentials"), (403, "credentials"), (404, "is missing")]
)
def test_refusals_are_not_tried_again(web, shard_set, storage, status, message):
    shards = ShardSet.open(f"{web.url}/{shard_set[0].name}", storage=storage)
    web.always[SHARD] = status
    with pytest.raises(DataError, match=f"{SHARD}: .*{message}"):
        shards.read(0)
    assert web.count(SHARD) == 1


def test_a_server_without_ranges(web, shard_set, storage):
    web.ranges = False
    shards = ShardSet.open(f"{web.url}/{shard_set[0].name}", storage=storage)
    with pytest.raises(DataError, match="streaming reader"):
        shards.read(0)


def test_a_changed_object(web, shard_set, storage):
    folder, _ = shard_set
    shards = ShardSet.open(f"{web.url}/{folder.name}", storage=replace(storage, memory_mb=0))
    before = bytes(shards.bytes_of(0))
    content = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(content[:-1] + b"\1")
    with pytest.raises(DataError, match=f"{SHARD}: was replaced"):
        shards.bytes_of(0)
    (folder / SHARD).write_bytes(content)
    assert bytes(shards.bytes_of(0)) == before
    (folder / SHARD).write_bytes(content[:-512])
    with pytest.raises(DataError, match=f"{SHARD}: has {len(content) - 512} bytes, not"):
        shards.bytes_of(0)


def test_an_index_of_another_set(web, shard_set, storage):
    folder, _ = shard_set
    index = bytearray((folder / "index.npy").read_bytes())
    index[-1] ^= 1
    (folder / "index.npy").write_bytes(index)
    with pytest.raises(DataError, match="index.npy: differs from its sha256"):
        ShardSet.open(f"{web.url}/{folder.name}", storage=storage)


def test_an_index_that_is_missing_or_has_no_place(web, shard_set, storage):
    folder, _ = shard_set
    url = f"{web.url}/{folder.name}"
    storage.cache.write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written.*another cache folder"):
        ShardSet.open(url, storage=storage)
    storage.cache.unlink()
    (folder / "index.npy").unlink()
    with pytest.raises(DataError, match="index.npy: is missing"):
        ShardSet.open(url, storage=storage)


def test_the_index_is_fetched_once(served, storage):
    door, url, _ = served
    for _ in range(3):
        ShardSet.open(url, storage=storage)
    assert door.count("index.npy") == 1
    for path in (storage.folder / "files").glob("*.npy"):
        path.write_bytes(b"damaged")
    assert len(ShardSet.open(url, storage=storage)) == 7
    assert door.count("index.npy") == 2


def test_blocks_in_memory(web, shard_set, storage):
    shards = ShardSet.open(f"{web.url}/{shard_set[0].name}", storage=storage)
    for _ in range(3):
        shards.bytes_of(0)
    assert web.count(SHARD) == 1
    none = ShardSet.open(f"{web.url}/{shard_set[0].name}", storage=replace(storage, memory_mb=0))
    for _ in range(3):
        none.bytes_of(0)
    assert web.count(SHARD) == 4


def on_disk(storage):
    return [path for path in (storage.folder / "blocks").glob("*/*") if path.suffix != ".tmp"]


def test_blocks_on_disk_serve_other_processes(web, shard_set, storage):
    folder, _ = shard_set
    storage = replace(storage, cache_gb=1.0)
    local, url = ShardSet.open(folder), f"{web.url}/{folder.name}"
    assert_equal(ShardSet.open(url, storage=storage), local)
    asked = len(web.seen)
    assert_equal(ShardSet.open(url, storage=storage), local)
    assert web.seen[asked:] == [f"/{folder.name}/dataset.json"]
    # Damaged files are seen and fetched again.
    damaged = sorted(on_disk(storage))[:3]
    damaged[0].write_bytes(damaged[0].read_bytes()[:-9])
    damaged[1].write_bytes(b"")
    content = bytearray(damaged[2].read_bytes())
    content[7] ^= 1
    damaged[2].write_bytes(content)
    assert_equal(ShardSet.open(url, storage=storage), local)
    assert len(web.seen) > asked + 2
    asked = len(web.seen)
    assert_equal(ShardSet.open(url, storage=storage), local)
    assert len(web.seen) == asked + 1


def test_the_cache_keeps_its_limit(web, shard_set, storage):
    folder, _ = shard_set
    limit = 300_000
    storage = replace(storage, cache_gb=limit / 1e9, memory_mb=0)
    local, shards = (
        ShardSet.open(folder),
        ShardSet.open(f"{web.url}/{folder.name}", storage=storage),
    )
    for _ in range(2):
        for i in range(7):
            assert bytes(shards.bytes_of(i)) == bytes(local.bytes_of(i))
            assert 0 < sum(path.stat().st_size for path in on_disk(storage)) <= limit
    # What was used last is what stays.
    last = {path: path.stat().st_mtime_ns for path in on_disk(storage)}
    asked = web.count(".tar")
    shards.bytes_of(6)
    assert web.count(".tar") == asked
    assert any(path.stat().st_mtime_ns > before for path, before in last.items())


def test_a_cache_that_cannot_be_written(web, shard_set, storage, caplog):
    folder, _ = shard_set
    storage = replace(storage, cache_gb=1.0)
    shards = ShardSet.open(f"{web.url}/{folder.name}", storage=storage)
    (storage.folder / "blocks").write_text("in the way")
    assert_equal(shards, ShardSet.open(folder))
    assert caplog.text.count("cannot be written") == 1


READ = """
import pickle, sys
shards = pickle.loads(sys.stdin.buffer.read())
sys.stdout.buffer.write(bytes(shards.bytes_of(4)))
"""


@pytest.mark.slow
def test_a_pickled_copy(web, shard_set, storage):
    folder, _ = shard_set
    shards = ShardSet.open(f"{web.url}/{folder.name}", storage=storage)
    shards.bytes_of(0)
    done = subprocess.run(
        [sys.executable, "-c", READ], input=pickle.dumps(shards), capture_output=True
    )
    assert done.stdout == bytes(ShardSet.open(folder).bytes_of(4)), done.stderr.decode()


def _read_forked(shards, out):
    try:
        shards.bytes_of(0)
    except UsageError as error:
        out.put(str(error))


def test_a_forked_copy_says_what_to_do(web, shard_set, storage):
    shards = ShardSet.open(f"{web.url}/{shard_set[0].name}", storage=storage)
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    process = context.Process(target=_read_forked, args=(shards, out))
    process.start()
    assert "forkserver" in out.get(timeout=60)
    process.join()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("ftp://host/set", "s3, gs, az"),
        ("https://user:secret@host/set", "credentials"),
        ("https://host/set?token=secret", "credentials"),
        ("pipe:cat {}", "streaming reader"),
        ("s3://", "check the URL"),
    ],
)
def test_places_that_are_none(place, message, storage):
    with pytest.raises(UsageError, match=message) as caught:
        ShardSet.open(place, storage=storage)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["../index.npy", "/etc/passwd", "a/b", ".hidden", ""])
def test_hostile_names_in_dataset_json(shard_set, name):
    folder, _ = shard_set
    path = folder / "dataset.json"
    info = json.loads(path.read_text())
    for kind in ("index", "shards"):
        bad = json.loads(path.read_text())
        (bad["index"] if kind == "index" else bad["shards"][0])["name"] = name
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match="impossible name"):
            ShardSet.open(folder)
        path.write_text(json.dumps(info))


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info.pop("preprocess"),
        lambda info: info.update(shards=3),
        lambda info: info["shards"][0].pop("sha256"),
        lambda info: info["shards"][0].update(bytes=-1),
        lambda info: info["shards"][0].update(studies="2"),
        lambda info: info["index"].update(sha256="../x"),
    ],
)
def test_a_damaged_dataset_json(shard_set, change):
    folder, _ = shard_set
    path = folder / "dataset.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))
    with pytest.raises(DataError, match="dataset.json: (damaged|lists).*build the set again"):
        ShardSet.open(folder)


@pytest.mark.parametrize("wrong", [{"block_mb": 0}, {"timeout": 0}, {"retries": -1}])
def test_settings_that_cannot_work(wrong):
    with pytest.raises(ValueError, match="must"):
        StorageConfig(**wrong)


def test_importing_stores_loads_no_client(tmp_path):
    program = (
        "import sys, gliomoe.data_shards.building.build, gliomoe.data_shards.storage.store\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'obstore', 'webdataset')))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], env=os.environ).returncode == 0
    assert open_store(tmp_path).name == str(tmp_path)

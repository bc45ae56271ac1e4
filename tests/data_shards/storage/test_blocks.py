"""The block cache under several processes at once."""

import hashlib
import multiprocessing
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliomoe.data_shards.storage.blocks import BlockCache
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.data_shards.storage.remote import RemoteStore
from gliomoe.data_shards.storage.store import FileInfo

BLOCK = 1 << 12
FILES = [
    FileInfo(f"{n}.tar", 40 * BLOCK - 100 * n, hashlib.sha256(bytes([n])).hexdigest())
    for n in range(3)
]


def content(file, number):
    size = min(BLOCK, file.bytes - number * BLOCK)
    return hashlib.shake_128(f"{file.name} {number}".encode()).digest(size)


def config(folder, limit):
    return StorageConfig(cache=folder, cache_gb=limit / 1e9, memory_mb=0, block_mb=BLOCK / 2**20)


def read_much(seed, folder, limit, failures):
    rng, cache = random.Random(seed), BlockCache(config(folder, limit))
    for _ in range(500):
        file, number = rng.choice(FILES), rng.randrange(40)
        found = cache.get(file, number)
        if found is None:
            cache.put(file, number, content(file, number))
        elif found != content(file, number):
            failures.put((file.name, number))


@pytest.mark.parametrize("limit", [50_000, 1_000_000])
def test_processes_share_a_folder(tmp_path, limit):
    context = multiprocessing.get_context("fork")  # nothing here has threads
    failures = context.Queue()
    processes = [
        context.Process(target=read_much, args=(seed, tmp_path, limit, failures))
        for seed in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert failures.empty()
    kept = [path for path in (tmp_path / "blocks").glob("*/*") if path.suffix != ".tmp"]
    # A process looks at the whole folder after each 1/256 of the limit that it wrote.
    assert 0 < sum(path.stat().st_size for path in kept) <= limit + 4 * (BLOCK + 4)
    cache = BlockCache(config(tmp_path, limit))
    found = [cache.get(file, n) for file in FILES for n in range(40)]
    wanted = [content(file, n) for file in FILES for n in range(40)]
    assert sum(block is not None for block in found) == len(kept)
    assert all(block in (None, right) for block, right in zip(found, wanted, strict=True))


def test_memory_keeps_what_was_used_last(tmp_path):
    settings = StorageConfig(cache=tmp_path, memory_mb=3 * BLOCK / 1e6, block_mb=BLOCK / 2**20)
    cache, file = BlockCache(settings), FILES[0]
    for number in (0, 1, 2, 0, 3):
        if cache.get(file, number) is None:
            cache.put(file, number, content(file, number))
    kept = [number for number in range(5) if cache.get(file, number) is not None]
    assert kept == [0, 2, 3]
    assert not (tmp_path / "blocks").exists()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), size=st.integers(1, 300), block=st.integers(1, 64), kept=st.integers(0, 200))
def test_any_part_of_a_file(data, size, block, kept):
    whole = hashlib.shake_128(b"file").digest(size)
    file = FileInfo("a.tar", size, "0" * 64)
    asked = []

    def fetch(file, start, stop):
        asked.append(range(start, stop))
        return memoryview(whole)[start:stop]

    store = RemoteStore("http://host", StorageConfig(block_mb=block / 2**20, memory_mb=kept / 1e6))
    store._fetch = fetch
    for _ in range(8):
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        asked.clear()
        assert bytes(store.range(file, start, stop - start, "")) == whole[start:stop]
        # Whole blocks or the file's end, none that is not needed, neighbours in one request.
        assert all(part.start % block == 0 and part.stop <= size for part in asked)
        assert all(part.stop % block == 0 or part.stop == size for part in asked)
        assert all(start - block < part.start and part.stop < stop + block for part in asked)
        assert all(a.stop < b.start for a, b in zip(asked, asked[1:], strict=False))

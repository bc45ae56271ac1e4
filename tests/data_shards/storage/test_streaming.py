"""The streaming reader: every study once, resumed from a number, damage named and contained."""

import io
import itertools
import json
import pickle
import re
import shlex
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.streaming import StreamSet


@pytest.fixture
def many(make_set, make_study):
    """Eleven small studies in six shards."""
    return make_set("many", [make_study(n, ["t1"], (20, 18, 22)) for n in range(11)], 12_000)


def keys(stream, numbers):
    return [stream.study(n).record["key"] for n in numbers]


def shard_keys(folder):
    """The keys of each shard, read by `tarfile`."""
    return [
        sorted({name.partition(".")[0] for name in tarfile.open(path).getnames()})
        for path in sorted(folder.glob("*.tar"))
    ]


def test_the_same_studies_as_the_indexed_reader(served, storage):
    _, url, folder = served
    indexed = ShardSet.open(folder)
    stream = StreamSet.open(url, seed=3, storage=storage)
    assert stream.epoch == len(stream) == 7
    assert (stream.fingerprint, stream.info) == (indexed.fingerprint, indexed.info)
    for n in range(14):
        study = stream.study(n)
        i = indexed.position(study.record["key"])
        assert study.members == {
            name: bytes(content) for name, content in indexed.study(i).members.items()
        }
        got, wanted = (
            collate([s.read((1, -2, 3), (16, 16, 16))]) for s in (study, indexed.study(i))
        )
        assert got.keys == wanted.keys
        np.testing.assert_array_equal(got.voxels, wanted.voxels)
        np.testing.assert_array_equal(got.sequence, wanted.sequence)


def test_a_server_without_ranges(web, shard_set, storage):
    web.ranges = False
    folder, _ = shard_set
    stream = StreamSet.open(f"{web.url}/{folder.name}", storage=storage)
    assert sorted(keys(stream, range(7))) == sorted(itertools.chain(*shard_keys(folder)))
    assert web.count(".tar") == len(shard_keys(folder))
    # Without ranges a cut response is read again from its start, without a study twice.
    for name in [f"shard-00000{n}.tar" for n in range(len(shard_keys(folder)))]:
        web.faults[name] = ["cut", 503]
    again = StreamSet.open(f"{web.url}/{folder.name}", storage=storage)
    assert keys(again, range(7)) == keys(stream, range(7))


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("window", [1, 3])
def test_every_study_once_an_epoch(many, lanes, window):
    stream = StreamSet.open(many, lanes=lanes, seed=1, window=window)
    everything = set(itertools.chain(*shard_keys(many)))
    assert stream.epoch == 11 // lanes * lanes
    left, orders = set(), set()
    for epoch in range(6):
        found = keys(stream, range(epoch * stream.epoch, (epoch + 1) * stream.epoch))
        assert len(set(found)) == len(found)
        assert set(found) <= everything
        left.add(frozenset(everything - set(found)))
        orders.add(tuple(found))
    assert len(orders) == 6
    assert left == {frozenset()} if lanes == 1 else len(left) > 1
    other = StreamSet.open(many, lanes=lanes, seed=2, window=window)
    assert tuple(keys(other, range(stream.epoch))) not in orders


def test_the_order_is_whole_shards_in_turn(many):
    stream = StreamSet.open(many, seed=5)
    found = keys(stream, range(11))
    shards = [shard for shard in shard_keys(many)]
    runs = []
    while found:
        (shard,) = [shard for shard in shards if shard[0] == found[0]]
        assert found[: len(shard)] == shard
        runs.append(shard)
        found = found[len(shard) :]
    assert sorted(runs) == shards != runs


@pytest.mark.parametrize("world", [1, 2, 4])
def test_resumed_at_any_world_size(many, world):
    settings = dict(lanes=4, seed=7, window=2)
    undisturbed = keys(StreamSet.open(many, **settings), range(40))
    for start in (0, 5, 13, 24):
        found = {}
        for rank in range(world):
            reader = StreamSet.open(many, **settings)
            mine = [n for n in range(start, 40) if n % world == rank]
            found |= dict(zip(mine, keys(reader, mine), strict=True))
        assert [found[n] for n in range(start, 40)] == undisturbed[start:]


def test_any_question_has_the_same_answer(many):
    settings = dict(lanes=2, seed=7, window=3)
    undisturbed = keys(StreamSet.open(many, **settings), range(30))
    reader = StreamSet.open(many, **settings)
    numbers = np.random.default_rng(0).integers(0, 30, 60).tolist()
    assert keys(reader, numbers) == [undisturbed[n] for n in numbers]
    copy = pickle.loads(pickle.dumps(reader))
    assert keys(copy, range(30)) == undisturbed


def test_a_lane_reads_each_shard_once(web, many, storage):
    stream = StreamSet.open(f"{web.url}/{many.name}", seed=1, window=4, storage=storage)
    keys(stream, range(stream.epoch))
    assert web.count(".tar") == len(shard_keys(many))


def rewrite(path, change):
    """Write a shard again with its members changed by `change(name, content)`."""
    with tarfile.open(path) as old:
        members = [(info, old.extractfile(info).read()) for info in old]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as new:
        for info, content in members:
            for name, kind, data in change(info.name, content):
                member = tarfile.TarInfo(name)
                member.type, member.size = kind, len(data)
                member.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
                new.addfile(member, io.BytesIO(data))


def damage_truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])


def damage_end(path):
    path.write_bytes(path.read_bytes().rstrip(b"\0"))


def damage_missing(path):
    path.unlink()


def damage_renamed(name):
    def damage(path):
        rewrite(path, lambda old, data: [(name, tarfile.REGTYPE, data)])

    return damage


def damage_link(path):
    def change(name, data):
        link = (name.replace("t1", "t2"), tarfile.SYMTYPE, b"")
        return [(name, tarfile.REGTYPE, data), *([link] if "t1" in name else [])]

    rewrite(path, change)


def damage_lacking(path):
    rewrite(path, lambda name, data: [(name, tarfile.REGTYPE, data)] * ("t1" not in name))


def damage_twice(path):
    rewrite(path, lambda name, data: [(name, tarfile.REGTYPE, data)] * 2)


def damage_study_twice(path):
    content = path.read_bytes().rstrip(b"\0")
    content += bytes(-len(content) % 512)
    path.write_bytes(content + content + bytes(1024))


def damage_fewer(path):
    rewrite(path, lambda name, data: [(name, tarfile.REGTYPE, data)] * name.startswith("case-0004"))


@pytest.mark.parametrize(
    ("damage", "message", "spared"),
    [
        (damage_truncated, "cut off", True),
        (damage_end, "cut off|damaged", True),
        (damage_missing, "missing", False),
        (damage_renamed("../../case-9.json"), r"'\.\./\.\./case-9\.json' is no name", False),
        (damage_renamed("/etc/case-9.json"), "'/etc/case-9.json' is no name", False),
        (damage_link, r"case-0004\.t2\.b2nd .* no plain file", False),
        (damage_twice, r"case-\d+\.json is there twice", False),
        (damage_study_twice, "cut off|twice or out of order|more than", True),
        (damage_lacking, "study case-0005: lacks t1.b2nd", False),
        (damage_fewer, "1 of 2 studies", True),
    ],
)
def test_damage_is_named_and_contained(many, damage, message, spared):
    settings = dict(seed=4, window=2)
    undisturbed = keys(StreamSet.open(many, **settings), range(22))
    (hurt,) = [n for n, found in enumerate(shard_keys(many)) if "case-0004" in found]
    lost = shard_keys(many)[hurt]
    assert len(lost) == 2
    path = many / f"shard-{hurt:06d}.tar"
    damage(path)
    reader = StreamSet.open(many, **settings)
    failed, reasons = set(), set()
    for n, key in enumerate(undisturbed):
        for _ in range(2):  # the answer stays the same
            try:
                assert reader.study(n).record["key"] == key
            except DataError as error:
                failed.add(key)
                reasons.add(str(error))
    assert all(path.name in reason and "\n" not in reason for reason in reasons)
    assert any(re.search(message, reason) for reason in reasons)
    assert failed == set(lost[-1:] if spared else lost)


def test_one_damaged_record_costs_one_study(many):
    path = many / "shard-000000.tar"
    first, second = shard_keys(many)[0]

    def change(name, data):
        return [(name, tarfile.REGTYPE, b"{" if name == f"{first}.json" else data)]

    rewrite(path, change)
    reader = StreamSet.open(many)
    found, failed = [], 0
    for n in range(11):
        try:
            found.append(reader.study(n).record["key"])
        except DataError as error:
            failed += 1
            assert path.name in str(error) and first in str(error)
    assert failed == 1 and second in found


@pytest.mark.parametrize("fault", [503, "cut", "stall", "slow"])
def test_faults_of_the_network(served, storage, fault):
    door, url, folder = served
    storage = replace(storage, timeout=0.5 if fault == "stall" else 20)
    undisturbed = keys(StreamSet.open(folder, seed=2), range(7))
    door.faults["shard-000000.tar"] = [fault] if fault == "slow" else [fault, fault]
    reader = StreamSet.open(url, seed=2, storage=storage)
    assert keys(reader, range(7)) == undisturbed
    assert not door.faults["shard-000000.tar"]


def test_faults_for_good(web, shard_set, storage):
    folder, _ = shard_set
    undisturbed = keys(StreamSet.open(folder, seed=2), range(14))
    reader = StreamSet.open(f"{web.url}/{folder.name}", seed=2, storage=storage)
    web.always["shard-000000.tar"] = 503
    lost = shard_keys(folder)[0]
    for n, key in enumerate(undisturbed):
        if key in lost:
            with pytest.raises(DataError, match=r"shard-000000\.tar: 3 attempts failed"):
                reader.study(n)
        else:
            assert reader.study(n).record["key"] == key
    # Tried again in the second epoch, not for each study.
    assert web.count("shard-000000.tar") == 2 * 3


def test_a_changed_object(web, shard_set, storage):
    folder, _ = shard_set
    reader = StreamSet.open(f"{web.url}/{folder.name}", storage=storage)
    order = keys(reader, range(14))
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    replaced = shard_keys(folder)[1]
    for n, key in enumerate(order):
        if key in replaced:
            with pytest.raises(DataError, match=f"{path.name}: was replaced"):
                reader.study(n)
        else:
            assert reader.study(n).record["key"] == key


def test_pipes(many, tmp_path):
    place = f"pipe:cat {shlex.quote(str(many))}/{{}}"
    with pytest.raises(UsageError, match="--allow-pipes"):
        StreamSet.open(place)
    stream = StreamSet.open(place, seed=3, allow_pipes=True)
    assert keys(stream, range(15)) == keys(StreamSet.open(many, seed=3), range(15))
    with pytest.raises(UsageError, match="needs {}"):
        StreamSet.open("pipe:cat nothing", allow_pipes=True)
    for path in many.glob("*.tar"):
        path.unlink()
    with pytest.raises(DataError, match="exit code 1"):
        stream.study(0)
        StreamSet.open(place, allow_pipes=True).study(0)


def test_a_file_name_is_no_command(many, tmp_path):
    info = json.loads((many / "dataset.json").read_text())
    info["shards"][0]["name"] = f"$(touch {tmp_path}/run).tar"
    (many / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="impossible name"):
        StreamSet.open(f"pipe:cat {many}/{{}}", allow_pipes=True)
    assert not (tmp_path / "run").exists()


def test_calls_that_are_wrong(many, tmp_path):
    with pytest.raises(UsageError, match="too few for 12 lanes"):
        StreamSet.open(many, lanes=12)
    with pytest.raises(UsageError, match="at least 1"):
        StreamSet.open(many, lanes=0)
    with pytest.raises(UsageError, match="not a finished shard set"):
        StreamSet.open(tmp_path)
    with pytest.raises(UsageError, match="no shard set"):
        StreamSet.open()
    with pytest.raises(ValueError, match="does not exist"):
        StreamSet.open(many).study(-1)

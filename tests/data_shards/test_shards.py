"""What is written is read back: whole studies, crops, index, several sets at once."""

import json
import pickle
import tarfile

import numpy as np
import pytest
import torch

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format.dataset import read_dataset
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.intensity import CEILING, FLOOR, robust_range
from gliomoe.data_shards.reading.codes import collate_codes
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.sample import to_sample
from gliomoe.data_shards.study import Study


def expected(volume):
    low, high = robust_range(volume)
    scaled = np.clip((volume - low) / (high - low), FLOOR, CEILING)
    return np.where(volume == 0, 0, scaled)


def padded(array, start, size):
    """Slow and obvious: voxel by voxel along each axis, 0 outside."""
    for axis, (first, count) in enumerate(zip(start, size, strict=True)):
        planes = [
            np.take(array, p, axis) if 0 <= p < array.shape[axis] else 0 * np.take(array, 0, axis)
            for p in range(first, first + count)
        ]
        array = np.stack(planes, axis)
    return array


def test_a_study_in_memory_is_what_a_shard_gives_back(shard_set):
    folder, studies = shard_set
    shards = ShardSet.open(folder)
    for i, made in enumerate(studies):
        sample, stored = to_sample(made), shards.read(i)
        assert torch.equal(sample.voxels, stored.voxels)
        assert torch.equal(sample.sequence, stored.sequence)
        assert torch.equal(sample.spacing, stored.spacing)


def test_no_usable_volume():
    with pytest.raises(DataError, match="no usable sequence"):
        to_sample(Study("x", "x", {}, np.eye(4)))
    flat = {"t1": np.full((4, 4, 4), 7, np.float32)}
    with pytest.raises(DataError, match="t1 has no contrast"):
        to_sample(Study("x", "x", flat, np.eye(4)))


def test_whole_studies(shard_set):
    folder, studies = shard_set
    shards = ShardSet.open(folder)
    assert len(shards) == 7
    assert len(shards.info["shards"]) > 1
    for i, made in enumerate(studies):
        sample, entry = shards.read(i), shards.entry(i)
        assert (entry.key, entry.subject, entry.shape) == (made.key, made.subject, made.shape)
        assert entry.sequences == ("t1", "flair") and entry.spacing == (2, 2, 2)
        assert entry.has_seg is (made.seg is not None) is (sample.seg is not None)
        assert entry.fingerprint == made.fingerprint
        assert sample.sequence.tolist() == [0, 3] and sample.spacing.tolist() == [2, 2, 2]
        for got, volume in zip(sample.voxels.numpy(), made.volumes.values(), strict=True):
            np.testing.assert_allclose(got, expected(volume), atol=2e-4)
            assert ((got == 0) == (volume == 0)).all()
        if made.seg is not None:
            np.testing.assert_array_equal(sample.seg.numpy(), made.seg)
        np.testing.assert_array_equal(shards.affine(i), made.affine)
        assert shards.position(made.key) == i


@pytest.mark.parametrize("start", [(0, 0, 0), (-9, 3, 30), (39, -40, 0), (41, 0, 0), (-50, 0, 0)])
def test_crops_are_padded_with_zero(shard_set, start):
    folder, studies = shard_set
    shards, size = ShardSet.open(folder), (33, 41, 20)
    sample = shards.read(2, start, size, sequences=["flair"])
    whole = shards.read(2)
    np.testing.assert_array_equal(sample.voxels[0], padded(whole.voxels[1].numpy(), start, size))
    np.testing.assert_array_equal(sample.seg, padded(studies[2].seg, start, size))
    assert shards.read(2, start, size, seg=False).seg is None


@pytest.mark.parametrize("start", [(0, 0, 0), (-9, 3, 30), (39, -40, 0), (-50, 0, 0)])
def test_codes_become_the_same_voxels(shard_set, start):
    folder, _ = shard_set
    shards, size = ShardSet.open(folder), (33, 41, 20)
    samples = [shards.study(i).codes(start, size) for i in (2, 6)]
    batch = collate_codes(samples).decode()
    expected = collate([shards.read(i, start, size, seg=False) for i in (2, 6)])
    assert torch.equal(batch.voxels, expected.voxels)
    assert torch.equal(batch.study, expected.study)
    assert torch.equal(batch.sequence, expected.sequence)
    assert torch.equal(batch.spacing, expected.spacing)
    assert batch.keys == expected.keys
    tissue = expected.voxels[expected.study == 0, 0].ne(0).any(0).float().mean()
    assert samples[0].tissue() == pytest.approx(float(tissue))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_codes_become_the_same_voxels_on_a_gpu(shard_set):
    folder, _ = shard_set
    codes = collate_codes([ShardSet.open(folder).study(2).codes((3, 2, 1), (33, 32, 20))])
    assert torch.equal(codes.to(torch.device("cuda")).decode().voxels.cpu(), codes.decode().voxels)


def test_what_tells_studies_again_needs_no_shard(make_set, make_study):
    parts = [
        make_set("a", [make_study(0), make_study(1)]),
        make_set("b", [make_study(n, ["t2"], (20, 50, 33)) for n in (5, 6, 7)]),
    ]
    shards = ShardSet.open(*parts)
    chosen = (1, 2, 4)
    expected = Seen.join(Seen.of_record(shards.record(i)) for i in chosen)
    assert len(expected.contents) == 3
    for folder in parts:
        for shard in folder.glob("*.tar"):
            shard.unlink()
    assert ShardSet.open(*parts).seen(chosen) == expected


def test_several_sets_and_copies(make_set, make_study):
    parts = [
        make_set("a", [make_study(0), make_study(1)]),
        make_set("b", [make_study(n, ["t2"], (20, 50, 33)) for n in (5, 6, 7)]),
    ]
    shards = ShardSet.open(*parts)
    assert [shards.entry(i).key[-1] for i in range(5)] == ["0", "1", "5", "6", "7"]
    assert shards.position("case-0006") == 3
    assert shards.info["sequences"] == {"t1": 2, "flair": 2, "t2": 3}
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.fingerprint == shards.fingerprint != ShardSet.open(parts[0]).fingerprint
    np.testing.assert_array_equal(copy.read(4).voxels, shards.read(4).voxels)
    with pytest.raises(DataError, match="case-0009: no such study"):
        shards.position("case-0009")
    with pytest.raises(DataError, match="has no t1, only"):
        shards.read(4, sequences=["t1"])
    with pytest.raises(IndexError):
        shards.read(5)


def test_members_and_headers_are_plain(shard_set):
    folder, _ = shard_set
    with tarfile.open(folder / "shard-000000.tar") as archive:
        members = archive.getmembers()
        record = json.load(archive.extractfile(members[0]))
    names = [member.name for member in members[:4]]
    suffixes = ["json", "t1.b2nd", "flair.b2nd", "seg.b2nd"]
    assert names == [f"case-0000.{suffix}" for suffix in suffixes]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
    assert record["shape"] == [40, 37, 45] and record["has_seg"] is True


def test_same_studies_same_bytes(make_set, make_study):
    folders = [make_set(name, [make_study(n) for n in range(3)]) for name in "ab"]
    for file in folders[0].iterdir():
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()


def test_sets_that_are_none(tmp_path, shard_set):
    folder, _ = shard_set
    with pytest.raises(UsageError, match="not a finished shard set"):
        ShardSet.open(tmp_path / "nowhere")
    info = read_dataset(folder)
    (folder / "dataset.json").write_text(json.dumps({**info, "format": 2}))
    with pytest.raises(DataError, match="format version 2"):
        ShardSet.open(folder)
    (folder / "dataset.json").write_text(json.dumps({**info, "studies": 9}))
    with pytest.raises(DataError, match="disagree"):
        ShardSet.open(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        ShardSet.open(folder)


def test_damaged_shards_are_named(shard_set):
    folder, _ = shard_set
    path = folder / "shard-000000.tar"
    content = path.read_bytes()
    path.write_bytes(content[:5000])
    with pytest.raises(DataError, match="ends before study case-0000"):
        ShardSet.open(folder).read(0)
    path.write_bytes(b"\1" * len(content))
    with pytest.raises(DataError, match="shard-000000.tar.*damaged"):
        ShardSet.open(folder).read(0)
    path.unlink()
    with pytest.raises(DataError, match="shard-000000.tar: cannot be read"):
        ShardSet.open(folder).read(0)

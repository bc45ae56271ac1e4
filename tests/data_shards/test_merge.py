"""Parts merge to the bytes of a build without parts; sets that do not fit are refused."""

import json
import shutil

import pytest

from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.building.failures import read_failures
from gliomoe.data_shards.building.merge import merge_shards
from gliomoe.data_shards.building.verify import verify
from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.format.index import INDEX, Index
from gliomoe.data_shards.format.writer import write_shard
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main

CASES = 7


def config(part="1/1", **more):
    return BuildConfig(**{"keep_ids": True, "shard_mb": 0.1, "part": part, **more})


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def built(tmp_path_factory, make_case):
    """Seven cases, two of them damaged; their set, and the same in 2, 3 and 9 parts."""
    root = tmp_path_factory.mktemp("built")
    for number in range(CASES):
        make_case(root / "cohort", number, ("t1", "t2"))
    for number in (1, 4):
        path = root / "cohort" / f"Case_{number:02d}" / f"Case_{number:02d}_t2.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])
    build_shards([root / "cohort"], root / "set", config())
    for count in (2, 3, 9):
        for number in range(1, count + 1):
            out = root / "parts" / f"{number}of{count}"
            build_shards([root / "cohort"], out, config(f"{number}/{count}"))
    return root


def parts(built, count):
    return [built / "parts" / f"{number}of{count}" for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [2, 3, 9])
def test_merged_parts_are_the_build_without_parts(built, tmp_path, count):
    report = merge_shards(parts(built, count)[::-1], tmp_path / "set")
    assert content(tmp_path / "set") == content(built / "set")
    assert [failure.key for failure in report.failed] == ["case_01", "case_04"]
    assert merge_shards(parts(built, count), tmp_path / "set").info == report.info
    assert build_shards([built / "cohort"], tmp_path / "set", config()).built == 0
    assert verify(tmp_path / "set").damage == ()


def test_each_study_is_in_one_part(built):
    for count in (2, 3):
        keys = [
            key.decode() for part in parts(built, count) for key in Index.open(part / INDEX).keys
        ]
        failed = [
            failure.key for folder in parts(built, count) for failure in read_failures(folder)
        ]
        assert sorted(keys + failed) == [f"case_{number:02d}" for number in range(CASES)]


@pytest.mark.parametrize("stop", [0, 1, "seal"])
def test_a_merge_that_is_cut_short(built, tmp_path, monkeypatch, stop):
    def fail(*args, **more):
        if stop == "seal" or args[0].name == f"shard-{stop:06d}.tar":
            raise KeyboardInterrupt
        return write_shard(*args)

    name = "building.merge.seal" if stop == "seal" else "format.writer.write_shard"
    with monkeypatch.context() as patch:
        patch.setattr(f"gliomoe.data_shards.{name}", fail)
        with pytest.raises(KeyboardInterrupt):
            merge_shards(parts(built, 3), tmp_path / "set")
    with pytest.raises(UsageError, match="differs in content"):
        merge_shards(parts(built, 2), tmp_path / "set")
    merge_shards(parts(built, 3), tmp_path / "set")
    assert content(tmp_path / "set") == content(built / "set")


def test_parts_that_do_not_fit(built, tmp_path):
    one, two, three = parts(built, 3)
    with pytest.raises(UsageError, match=r"part 2 of 3 is missing; .* --part 2/3 makes it"):
        merge_shards([one, three], tmp_path / "set")
    with pytest.raises(UsageError, match="are both part 1 of 3"):
        merge_shards([one, two, shutil.copytree(one, tmp_path / "copy")], tmp_path / "set")
    with pytest.raises(UsageError, match="is part 1 of 2, the others are parts of 3"):
        merge_shards([one, two, parts(built, 2)[0]], tmp_path / "set")
    with pytest.raises(UsageError, match="is no part, the others are parts of 3"):
        merge_shards([one, built / "set"], tmp_path / "set")
    other = config("3/3", preprocess=PreprocessConfig(spacing=2.0))
    build_shards([built / "cohort"], tmp_path / "other", other)
    with pytest.raises(UsageError, match="differs from .* in preprocess; build both"):
        merge_shards([one, two, tmp_path / "other"], tmp_path / "set")
    with pytest.raises(UsageError, match="not a finished shard set"):
        merge_shards([one, two, tmp_path / "nowhere"], tmp_path / "set")
    with pytest.raises(UsageError, match="no shard set given"):
        merge_shards([], tmp_path / "set")
    with pytest.raises(UsageError, match="holds another shard set"):
        merge_shards([built / "set"], merge_shards(parts(built, 3), tmp_path / "m").out, 0.3)
    for text in ("0/3", "4/3", "3", "a/b", "-1/3"):
        with pytest.raises(ValueError, match="part must be I/N"):
            config(text)


def test_damage_is_not_copied(built, tmp_path):
    copies = [shutil.copytree(part, tmp_path / part.name) for part in parts(built, 2)]
    path = copies[1] / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="2of2/shard-000000.tar, study case_0.: is damaged"):
        merge_shards(copies, tmp_path / "set")
    path.unlink()
    with pytest.raises(DataError, match="the shard is missing"):
        merge_shards(copies, tmp_path / "set")
    shutil.copy(parts(built, 2)[1] / path.name, path)
    merge_shards(copies, tmp_path / "set")
    assert content(tmp_path / "set") == content(built / "set")


def test_sets_of_different_sources(built, make_case, tmp_path):
    for number in (20, 21):
        make_case(tmp_path / "more", number, ("t1", "flair"))
    build_shards([tmp_path / "more"], tmp_path / "b", config(shard_mb=0.3))
    with pytest.raises(UsageError, match="in shard_mb"):
        merge_shards([built / "set", tmp_path / "b"], tmp_path / "set")
    report = merge_shards([built / "set", tmp_path / "b"], tmp_path / "set", 0.2)
    assert report.info["studies"] == CASES and report.info["failed"] == 2
    assert report.info["sequences"] == {"t1": 7, "t2": 5, "flair": 2}
    merged, b = ShardSet.open(tmp_path / "set"), ShardSet.open(tmp_path / "b")
    assert bytes(merged.bytes_of(6)) == bytes(b.bytes_of(1))
    assert verify(tmp_path / "set").damage == ()
    with pytest.raises(UsageError, match="5 studies are in two sets, first case_00 in .*set"):
        merge_shards([tmp_path / "set", built / "set"], tmp_path / "again", 0.2)


def test_a_part_is_repaired(built, make_case, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    cohort, folders = tmp_path / "copy" / "cohort", parts(tmp_path / "copy", 2)
    make_case(cohort, 1, ("t1", "t2"))
    assert build_shards([cohort], folders[1], config("2/2")).built == 1
    with pytest.raises(UsageError, match="in inputs; build both with the same sources"):
        merge_shards(folders, tmp_path / "set")
    assert build_shards([cohort], folders[0], config("1/2")).built == 0
    merge_shards(folders, tmp_path / "set")
    build_shards([cohort], tmp_path / "direct", config())
    assert content(tmp_path / "set") == content(tmp_path / "direct")


def test_command(built, tmp_path, capsys):
    args = ["shards", "merge", *map(str, parts(built, 3)), "--out", str(tmp_path / "set")]
    assert main(args) == 1
    assert "5 studies of 3 sets" in capsys.readouterr().out
    assert main([*args, "--json", "True"]) == 1
    assert len(json.loads(capsys.readouterr().out)["failed"]) == 2
    assert main(["shards", "merge", "--out", str(tmp_path / "x")]) == 2


def test_a_set_is_not_merged_into_itself(built, capsys):
    before = content(built / "set")
    place = str(built / "set")
    assert main(["shards", "merge", place, "--out", place]) == 2
    assert "is one of the sets to merge" in capsys.readouterr().err
    assert content(built / "set") == before

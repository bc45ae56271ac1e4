"""Damage is found and named, by the commands and by the plain reader."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from gliomoe.data_shards.building.verify import verify
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main


def test_a_whole_set(shard_set, capsys):
    folder, _ = shard_set
    assert verify(folder).damage == ()
    assert main(["shards", "verify", str(folder)]) == 0
    assert "7 studies in" in capsys.readouterr().out


def test_each_damaged_study_is_named(shard_set, capsys):
    folder, _ = shard_set
    shards = ShardSet.open(folder)
    for i in (1, 4):
        name, place = shards.place(i)
        path = Path(name)
        data = bytearray(path.read_bytes())
        data[place.offset + place.length // 2] ^= 1
        path.write_bytes(data)
    damage = verify(folder).damage
    assert [found.key for found in damage] == ["case-0001", "case-0004"]
    assert main(["shards", "verify", str(folder), "--json", "True"]) == 1
    assert len(json.loads(capsys.readouterr().out)["damage"]) == 2


def test_damage_before_hashing_is_found_by_decoding(make_set, make_study, capsys):
    def damaged(study):
        made = encode_study(study)
        if study.key != "case-0001":
            return made
        name, frame = made.members[1]
        broken = bytearray(frame)
        broken[len(frame) // 2 : len(frame) // 2 + 400] = bytes(400)
        return replace(made, members=(made.members[0], (name, bytes(broken)), *made.members[2:]))

    folder = make_set("set", [make_study(n) for n in range(3)], encode=damaged)
    assert verify(folder).damage == ()
    (found,) = verify(folder, decode=True).damage
    assert found.key == "case-0001" and "t1.b2nd holds other voxels" in found.reason
    assert main(["shards", "verify", str(folder), "--decode", "True"]) == 1
    assert "case-0001" in capsys.readouterr().out


def test_other_fingerprints(shard_set):
    folder, _ = shard_set
    path = folder / "fingerprints.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (found,) = verify(folder).damage
    assert found.shard == path.name and "differs from its sha256" in found.reason


def test_missing_cut_off_and_padded_shards(shard_set, tmp_path):
    folder, _ = shard_set
    missing, cut, padded = (shutil.copytree(folder, tmp_path / n) for n in ("m", "c", "p"))
    first = ShardSet.open(folder).info["shards"][0]
    (missing / first["name"]).unlink()
    assert len(verify(missing).damage) == first["studies"]
    data = (cut / first["name"]).read_bytes()
    (cut / first["name"]).write_bytes(data[: len(data) - 3000])
    assert [found.key for found in verify(cut).damage] == [f"case-{first['studies'] - 1:04d}"]
    (padded / first["name"]).write_bytes(data + bytes(512))
    (found,) = verify(padded).damage
    assert found.key is None and "outside its studies" in found.reason


def test_plain_webdataset_reads_the_shards(shard_set):
    folder, studies = shard_set
    program = (
        "import sys, webdataset\n"
        "for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):\n"
        "    print(sample['__key__'], sorted(key for key in sample if key[0] != '_'))\n"
    )
    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    environment = {name: value for name, value in os.environ.items() if name != "WDS_SECURE"}
    done = subprocess.run(
        [sys.executable, "-c", program, *shards], env=environment, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 7, done.stderr
    assert lines[0] == "case-0000 ['flair.b2nd', 'json', 'seg.b2nd', 't1.b2nd']"


def test_inspect(shard_set, capsys):
    folder, _ = shard_set
    assert main(["shards", "inspect", str(folder)]) == 0
    assert "t1 7, flair 7" in capsys.readouterr().out
    assert main(["shards", "inspect", str(folder), "case-0003", "--json", "True"]) == 0
    assert json.loads(capsys.readouterr().out)["subject"] == "case-0001"
    assert main(["shards", "inspect", str(folder), "nobody"]) == 1
    assert main(["shards", "inspect", str(folder / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 2

"""`gliomoe shards build --dry-run`, and names that a shell would trip over."""

import json
import os

import pytest

from gliomoe.data_shards.building.failures import read_failures
from gliomoe.launch.cli import main


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def source(tmp_path):
    """A BIDS data set: one subject with labels and more files than are used, one without images."""
    folder = touch(
        tmp_path / "set",
        *(f"sub-A/anat/sub-A_{name}.nii.gz" for name in ("T1w", "run-2_T1w", "FLAIR", "mask")),
        "sub-B/anat/readme.txt",
        "derivatives/hand/sub-A/anat/sub-A_dseg.nii.gz",
    )
    (folder / "participants.tsv").write_text("participant_id\tidh\nsub-A\tmutant\n")
    return folder


def test_dry_run_in_words(source, capsys):
    before = sorted(source.parent.rglob("*"))
    assert main(["shards", "build", str(source), "--dry-run"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{source}",
        "  sub-A (bids)",
        f"    t1        {source}/sub-A/anat/sub-A_T1w.nii.gz",
        f"    flair     {source}/sub-A/anat/sub-A_FLAIR.nii.gz",
        f"    seg       {source}/derivatives/hand/sub-A/anat/sub-A_dseg.nii.gz (brats2021)",
        "    labels    idh mutant",
        f"    left out  {source}/sub-A/anat/sub-A_mask.nii.gz: a mask",
        f"    left out  {source}/sub-A/anat/sub-A_run-2_T1w.nii.gz: "
        "a second t1 beside sub-A_T1w.nii.gz",
        "  sub-B (bids)",
        "    no series: this study cannot be used",
        "2 studies, 1 of them without a series; nothing was written",
    ]
    assert sorted(source.parent.rglob("*")) == before


def test_dry_run_for_machines(source, capsys):
    (source / "sub-B/anat/readme.txt").rename(source / "sub-B/anat/sub-B_T1w.nii.gz")
    assert main(["shards", "build", str(source), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["studies"], found["empty"]) == (2, 0)
    a, _ = found["sources"][0]["studies"]
    assert a["labels"] == {"idh": "mutant"} and list(a["series"]) == ["t1", "flair"]
    assert len(a["left_out"]) == 2


def test_dry_run_sees_studies_of_one_key(tmp_path, capsys):
    for name in "ab":
        touch(tmp_path, f"{name}/P/t1.nii")
    sources = [str(tmp_path / name) for name in "ab"]
    assert main(["shards", "build", *sources, "--dry-run"]) == 2
    assert "are both study" in capsys.readouterr().err


def test_out_is_needed_otherwise(source, capsys):
    assert main(["shards", "build", str(source)]) == 2
    assert "--out is missing" in capsys.readouterr().err


AWKWARD = ["a b", 'it\'s "so"', "two\nlines", "脳 мозг", "-t1", "tab\tand \x1b[31mred", "*?[x]"]


@pytest.mark.parametrize("name", [*AWKWARD, os.fsdecode(b"bytes \xff\xfe")])
def test_awkward_names_survive(tmp_path, make_case_named, name, capsys):
    folder = make_case_named(tmp_path / "in", name)
    assert main(["shards", "build", str(tmp_path / "in"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 6 and "\x1b" not in shown and shown.encode()
    json_too = ["shards", "build", str(tmp_path / "in"), "--dry-run", "--json"]
    assert main(json_too) == 0
    (study,) = json.loads(capsys.readouterr().out)["sources"][0]["studies"]
    assert study["subject"] == name
    build = ["shards", "build", str(tmp_path / "in"), "--steps", "background", "grid", "crop"]
    assert main([*build, "--out", str(tmp_path / "out")]) == 0
    (folder / "t2.nii").write_bytes(b"broken")
    assert main([*build, "--out", str(tmp_path / "more")]) == 1
    (failure,) = read_failures(tmp_path / "more")
    assert "not a NIfTI file" in failure.reason and "\n" not in failure.source
    assert len(capsys.readouterr().err.strip().splitlines()) <= 4


@pytest.fixture
def make_case_named():
    """A case folder of a name, with a small T1, FLAIR and a mask."""
    import numpy as np

    from gliomoe.data_shards.nifti import write_nifti

    def make(root, name):
        for number, sequence in enumerate(("t1", "flair")):
            data = np.random.default_rng(number).integers(100, 1000, (12, 12, 12))
            write_nifti(root / name / f"{sequence}.nii", data.astype(np.int16), np.eye(4))
        touch(root, f"{name}/mask.nii")
        return root / name

    return make

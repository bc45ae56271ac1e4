"""Labelled cases from the labels that the data carry themselves."""

import json
import math

import numpy as np
import pytest

from gliomoe.data_shards.building.build import BuildConfig, build_shards, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import (
    CONFLICTS,
    known_tasks,
    labelled_cases,
    require_labels,
    write_conflicts,
)

STEPS = ("background", "grid", "crop")  # what is simulated here has no brain to extract
SMALL = BuildConfig(keep_ids=True, preprocess=PreprocessConfig(spacing=None, steps=STEPS))


@pytest.fixture
def cohort(tmp_path):
    """A BIDS data set of three subjects: two with an IDH status, one of these with a grade."""
    folder = tmp_path / "bids"
    for number, name in enumerate("ABC"):
        data = np.random.default_rng(number).integers(100, 1000, (12, 12, 12)).astype(np.int16)
        write_nifti(folder / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii", data, np.eye(4))
    table = "participant_id\tname\tidh\tgrade\nA\tAda\tmutant\t2\nB\tBob\twt\tn/a\n"
    (folder / "participants.tsv").write_text(table, "utf-8")
    return folder


def test_labels_travel_from_the_source_to_the_cases(cohort, tmp_path):
    shards = open_or_build(cohort, tmp_path / "cache", SMALL)
    assert known_tasks(shards, None) == {"idh", "grade", "hgg"}
    cases = {case.key: case.targets for case in labelled_cases(shards, None, ["idh", "grade"])}
    assert list(cases) == ["sub-a", "sub-b"]
    assert cases["sub-a"] == {"idh": 1.0, "grade": 2.0}
    assert cases["sub-b"]["idh"] == 0.0 and math.isnan(cases["sub-b"]["grade"])
    with pytest.raises(UsageError, match=r"task tert: no case has a known label in the data, and"):
        labelled_cases(shards, None, ["tert"])


def test_a_table_wins_over_what_the_studies_carry(cohort, tmp_path):
    shards = open_or_build(cohort, tmp_path / "cache", SMALL)
    table = tmp_path / "labels.csv"
    table.write_text("case,idh,tert\nsub-C,mutant,n/a\n", "utf-8")
    assert known_tasks(shards, table) == {"idh"}
    assert [case.key for case in labelled_cases(shards, table, ["idh"])] == ["sub-c"]


def test_low_and_high_grade_are_a_task_of_their_own(ball_shards, tmp_path):
    shards = ShardSet.open(ball_shards(range(4)))
    table = tmp_path / "name_mapping.csv"
    table.write_text("Grade,BraTS_2020_subject_ID\nHGG,case-0\nLGG,case-1\nIII,case-2\n2,case-3\n")
    cases = labelled_cases(shards, table, ["grade", "hgg"])
    assert [case.targets["hgg"] for case in cases] == [1.0, 0.0, 1.0, 0.0]
    assert [case.targets["grade"] for case in cases[2:]] == [3.0, 2.0]
    assert all(math.isnan(case.targets["grade"]) for case in cases[:2])
    table.write_text("Grade,case\nHGG,case-0\nLGG,case-1\n")
    with pytest.raises(
        UsageError, match="task grade: .*; LGG and HGG are what the task hgg learns"
    ):
        labelled_cases(shards, table, ["grade"])


def test_what_a_table_says_in_vain_is_told_and_listed(ball_shards, tmp_path, caplog):
    shards = ShardSet.open(ball_shards(range(3)))
    table = tmp_path / "labels.csv"
    table.write_text(
        "case,IDH NGS,IDH IHC,IDH,TERT,TERT status\n"
        "case-0,wt,positive,,wt,mut\ncase-1,n/a,negative,,,\nghost,wt,,,,\n"
        "case-2,,,wt,,\ncase-2,,,mutant,,\n"
    )
    with caplog.at_level("INFO"):
        cases = {case.key: case.targets for case in labelled_cases(shards, table, ["idh"])}
    assert cases == {"case-0": {"idh": 0.0}, "case-1": {"idh": 0.0}}
    assert caplog.messages == [
        f"{table}: 1 row(s) of cases that the data lack: ghost",
        f"{table}: 1 label(s) left out, their sources disagree: idh of case-2",
        "2 of 3 studies carry labels; without: case-2",
    ]
    write_conflicts(tmp_path, shards, table, ["idh"])
    assert (tmp_path / CONFLICTS).read_text() == (
        "case,task,target,method,line,column,value\n"
        "case-2,idh,0,unspecified,5,IDH,wt\n"
        "case-2,idh,1,unspecified,6,IDH,mutant\n"
    )
    write_conflicts(tmp_path, shards, None, ["idh"])
    assert not (tmp_path / CONFLICTS).exists()


def test_records_hold_labels_only_where_there_are_some(cohort, tmp_path):
    build_shards([cohort], tmp_path / "set", SMALL)
    records = [dict(ShardSet.open(tmp_path / "set").record(i)) for i in range(3)]
    assert [record.get("labels") for record in records] == [
        {"grade": "2", "idh": "mutant"},
        {"idh": "wt"},
        None,
    ]
    assert "labels" not in records[2] and "Bob" not in json.dumps(records)


def test_changed_labels_are_another_set(cohort, tmp_path):
    build_shards([cohort], tmp_path / "set", SMALL)
    path = cohort / "participants.tsv"
    path.write_text(path.read_text().replace("wt", "na"), "utf-8")
    with pytest.raises(UsageError, match="holds another shard set"):
        build_shards([cohort], tmp_path / "set", SMALL)


def test_missing_labels_are_known_before_anything_is_built(cohort):
    require_labels(cohort, ["idh", "grade"])
    require_labels(cohort, [])
    with pytest.raises(UsageError, match="carries no labels for tert; give a table with --labels"):
        require_labels(cohort, ["idh", "tert"])


@pytest.mark.real
def test_a_table_finds_the_real_cases(real_data, tmp_path):
    config = BuildConfig(keep_ids=True, preprocess=PreprocessConfig(spacing=8.0, steps=STEPS))
    shards = open_or_build(real_data / "brats", tmp_path / "cache", config)
    table = tmp_path / "metadata.csv"
    table.write_text(
        "ID,WHO CNS Grade,IDH,1p/19q,BraTS21 ID\n"
        "UCSF-PDGM-0006,4,wildtype,unknown,BraTS2021_00006\n"
        "UCSF-PDGM-0477,2,IDH1 p.R132H,relative co-deletion,BraTS2021_01477\n"
        "UCSF-PDGM-0480,3,mutated (NOS),intact,BraTS2021_1480\n"
        "UCSF-PDGM-0500,4,wildtype,,\n"
        "Brats18_2013_2_1,HGG,,,\n"
    )
    cases = labelled_cases(shards, table, ["seg", "idh", "1p19q", "hgg"])
    told = {case.key: case.targets for case in cases}
    assert len(told) == 7
    assert told["brats2021_01477"] == {"seg": 1.0, "idh": 1.0, "1p19q": 1.0, "hgg": 0.0}
    assert told["brats2021_01480"] == {"seg": 1.0, "idh": 1.0, "1p19q": 0.0, "hgg": 1.0}
    assert told["brats18_2013_2_1"]["hgg"] == 1.0 and told["brats2021_00006"]["idh"] == 0.0
    assert math.isnan(told["brats2021_01476"]["idh"])

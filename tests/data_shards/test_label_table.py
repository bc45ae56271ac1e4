"""Label tables are read in many spellings and never guessed."""

import math
from pathlib import Path

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.label_table import (
    Reading,
    Row,
    known_counts,
    match_cases,
    read_label_table,
    read_labels,
    settle,
)
from gliomoe.data_shards.label_values import Method


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def targets(path: Path) -> dict[str, dict[str, float]]:
    """Case as the table first calls it → task → target, all rows settled."""
    table = read_label_table(path)
    names = {row.names[0]: row.names[0] for row in table}
    matched, unknown = match_cases(table, names, path)
    assert not unknown
    return settle(matched)[0]


@pytest.mark.parametrize(
    ("column", "value", "task", "expected"),
    [
        ("IDH", "mutant", "idh", 1.0),
        ("idh_status", "Wild-Type", "idh", 0.0),
        ("IDH", "1", "idh", 1.0),
        ("IDH", "0.0", "idh", 0.0),
        ("IDH", "NOS", "idh", None),
        ("IDH", "n/a", "idh", None),
        ("IDH", "", "idh", None),
        ("IDH", "+", "idh", 1.0),
        # UCSF-PDGM
        ("IDH", "wildtype", "idh", 0.0),
        ("IDH", "mutated (NOS)", "idh", 1.0),
        ("IDH", "IDH1 p.R132H", "idh", 1.0),
        ("IDH", "IDH2 p.Arg172Trp", "idh", 1.0),
        ("1p/19q", "relative co-deletion", "1p19q", 1.0),
        ("1p/19q", "Co-deletion", "1p19q", 1.0),
        ("1p/19q", "intact", "1p19q", 0.0),
        ("WHO CNS Grade", "4", "grade", 4.0),
        # UPenn-GBM
        ("IDH1", "Mutated", "idh", 1.0),
        ("IDH1", "NOS/NEC", "idh", None),
        # TCGA
        ("IDH status", "WT", "idh", 0.0),
        ("1p/19q codeletion", "non-codel", "1p19q", 0.0),
        ("TERT promoter status", "Mutant", "tert", 1.0),
        ("IDH/codel subtype", "IDHmut-non-codel", "idh", 1.0),
        ("IDH/codel subtype", "IDHmut-non-codel", "1p19q", 0.0),
        ("IDH/codel subtype", "IDHmut-codel", "1p19q", 1.0),
        ("IDH/codel subtype", "IDHwt", "1p19q", None),
        ("neoplasm_histologic_grade", "G3", "grade", 3.0),
        # Erasmus
        ("IDH", "-1", "idh", None),
        ("Grade", "-1.0", "grade", None),
        # BraTS up to 2020
        ("Grade", "HGG", "grade", None),
        ("Grade", "LGG", "grade", None),
        ("Grade", "LGG", "hgg", 0.0),
        ("LGG/HGG", "HGG", "hgg", 1.0),
        ("Grade", "III", "hgg", 1.0),
        ("Grade", "2", "hgg", 0.0),
        ("Grade", "1", "hgg", 0.0),
        ("Grade", "1", "grade", None),
        ("high_grade", "1", "hgg", 1.0),
        ("Grade", "n/a", "hgg", None),
        # hospitals
        ("IDH1/2 mutation status", "IDH-mutated (IDH1 p.R132H)", "idh", 1.0),
        ("IDH1 R132H (IHC)", "R132H negative", "idh", 0.0),
        ("IDH", "IDH1-wildtype", "idh", 0.0),
        ("IDH", "not mutated", "idh", 0.0),
        ("IDH", "mutant (NGS)", "idh", 1.0),
        ("Codeletion", "co-deleted", "1p19q", 1.0),
        ("1p19q_codeletion", "no codeletion", "1p19q", 0.0),
        ("TERT promoter", "C228T", "tert", 1.0),
        ("TERT", "c.-124C>T", "tert", 1.0),
        ("TERTp", "wt", "tert", 0.0),
        ("WHO grade", "IV", "grade", 4.0),
        ("grade", "Grade II", "grade", 2.0),
        ("WHO 2021 grade", "CNS WHO grade 3", "grade", 3.0),
        ("grade", "3.0", "grade", 3.0),
    ],
)
def test_values(tmp_path, column, value, task, expected):
    found = targets(write(tmp_path, f"case;{column}\na;{value}\n"))["a"][task]
    assert math.isnan(found) if expected is None else found == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("IDH", "-"),  # negative, or not known
        ("IDH", "IDH1"),
        ("IDH", "non-R132H"),
        ("IDH", "0.5"),
        ("1p/19q", "1p loss only"),
        ("grade", "2-3"),
        ("grade", "0"),
        ("LGG/HGG", "1"),  # low, or high
    ],
)
def test_what_could_be_read_two_ways_is_refused(tmp_path, column, value):
    with pytest.raises(UsageError, match=r"1 cell\(s\) hold no label"):
        read_label_table(write(tmp_path, f"case;{column}\na;{value}\n"))


@pytest.mark.parametrize(
    "column",
    [
        "IDH index",
        "TERT expression status",
        "MGMT status",
        "1p",
        "grade of edema",
        "OS",
        "IDH notes",
    ],
)
def test_other_columns_are_passed_over(tmp_path, column):
    assert targets(write(tmp_path, f"case,{column}\na,anything at all\n")) == {"a": {}}


@pytest.mark.parametrize(
    ("columns", "values", "expected"),
    [
        ("IDH sequencing,IDH IHC,IDH", "wt,positive,mutant", 0.0),
        ("IDH IHC,IDH", "negative,mutant", 0.0),
        ("IDH NGS,IDH IHC,IDH", "NOS,positive,wt", 1.0),
        ("IDH,IDH status", "mutant,1", 1.0),
        ("IDH,IDH status", "mutant,wt", None),
        ("IDH IHC,IDH immunohistochemistry", "positive,negative", None),
        ("IDH NGS,IDH Sanger,IDH", "wt,mutant,mutant", None),
        # one gene or mutation against another
        ("IDH1,IDH2", "wt,mutant", 1.0),
        ("IDH1,IDH2", "wt,wt", 0.0),
        ("IDH1,IDH", "wt,mutant", 1.0),
        ("IDH1,IDH", "mutant,wt", None),
        ("IDH1 R132H IHC,IDH1 sequencing", "negative,p.R132C", 1.0),
        ("IDH1 R132H,IDH1", "positive,wt", None),
        # the method in a column of its own, or in the cell
        ("IDH,IDH method,IDH IHC", "wt,NGS panel,mutant", 0.0),
        ("IDH,IDH status", "wt (sequencing),mutant (IHC)", 0.0),
    ],
)
def test_sources_of_one_label(tmp_path, columns, values, expected):
    found = targets(write(tmp_path, f"case,{columns}\na,{values}\n"))["a"]["idh"]
    assert math.isnan(found) if expected is None else found == expected


def test_rows_of_different_sources(tmp_path):
    text = "case,IDH,method\na,wt,IHC\na,mutant,sequencing\nb,wt,\nb,mutant,\nb,n/a,sequencing\n"
    path = write(tmp_path, text)
    table = read_label_table(path)
    found, conflicts = settle(match_cases(table, {"a": "a", "b": "b"}, path)[0])
    assert found["a"] == {"idh": 1.0} and math.isnan(found["b"]["idh"])
    (conflict,) = conflicts
    assert (conflict.key, conflict.task) == ("b", "idh")
    assert [(r.line, r.value, r.method.name) for r in conflict.readings] == [
        (4, "wt", "UNSPECIFIED"),
        (5, "mutant", "UNSPECIFIED"),
    ]


def test_tab_separated_table_with_other_columns_and_bom(tmp_path):
    text = "\ufeffparticipant_id\tage\tidh\tgrade\nsub-01\t61\twildtype\t4\n\nsub-02\tn/a\tn/a\t2\n"
    table = targets(write(tmp_path, text, "participants.tsv"))
    assert table["sub-01"] == {"idh": 0.0, "grade": 4.0, "hgg": 1.0}
    assert math.isnan(table["sub-02"]["idh"])
    assert known_counts(table.values(), "grade") == {2.0: 1, 4.0: 1}
    assert known_counts(table.values(), "idh") == {0.0: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,idh\n3,1\n", "no column names the cases; have age, idh"),
        (
            "case,idh\na,mutnat\n",
            "1 cell(s) hold no label: idh 'mutnat' (1 row; nearest known: mutant)",
        ),
        (
            "case,idh,grade\na,maybe,2-3\nb,maybe,4\n",
            "3 cell(s) hold no label: idh 'maybe' (2 rows; known: mutant, mut, mutated",
        ),
        ("case,idh\na\n", "line 2: 1 cells, the header has 2"),
        ("case,idh\n", "needs a header line and at least one case"),
        ("case,idh\n,1\n", "line 2: no case name"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as error:
        read_label_table(path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_binary_file_and_missing_file(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\x89PNG\xff\xfe")
    for name in ("x.csv", "none.csv"):
        with pytest.raises(UsageError, match=name):
            read_label_table(tmp_path / name)


def rows(text: str) -> list[Row]:
    """Rows of cases (several names by `/`) with an IDH status, `name: value; …`."""
    return [
        Row(
            line,
            tuple(names.split("/")),
            {"idh": [Reading(float(value), Method.UNSPECIFIED, "", line, "idh", value)]},
        )
        for line, (names, value) in enumerate((pair.split(":") for pair in text.split(";")), 2)
    ]


def matched(text: str, cases: dict[str, str]) -> tuple[dict[str, float], list[str]]:
    readings, unknown = match_cases(rows(text), cases, Path("t.csv"))
    return {key: labels["idh"] for key, labels in settle(readings)[0].items()}, unknown


def test_rows_match_keys_and_subjects():
    cases = {"sub-01_ses-1": "sub-01", "sub-01_ses-2": "sub-01", "brats_7": "brats_7"}
    found, unknown = matched("01:1;BraTS_7:0", cases)
    assert found == {"sub-01_ses-1": 1.0, "sub-01_ses-2": 1.0, "brats_7": 0.0} and not unknown


def test_a_session_row_adds_to_its_subject():
    cases = {"p_a": "p", "p_b": "p"}
    table = [*rows("p:1"), Row(3, ("p_a",), {"grade": [Reading(4.0, Method.IHC, "", 3, "", "")]})]
    found = settle(match_cases(table, cases, Path("t.csv"))[0])[0]
    assert found == {"p_a": {"idh": 1.0, "grade": 4.0}, "p_b": {"idh": 1.0}}


def test_any_column_of_names_may_match():
    assert matched("TCGA-02/BraTS20_1:1", {"brats20_1": "brats20_1"}) == ({"brats20_1": 1.0}, [])


def test_leading_zeros_where_nothing_else_fits():
    cases = {"ucsf-pdgm-0004_nifti": "UCSF-PDGM-0004_nifti", "x-07": "x-07", "x-7": "x-7"}
    found, unknown = matched("UCSF-PDGM-004:1;x-7:0;x-007:1", cases)
    assert found == {"ucsf-pdgm-0004_nifti": 1.0, "x-7": 0.0} and unknown == ["x-007"]


def test_zeros_inside_a_number_count():
    found, unknown = matched("BraTS2021_105:1;BraTS2021_15:0", {"b": "BraTS2021_00105"})
    assert found == {"b": 1.0} and unknown == ["BraTS2021_15"]


def test_rows_of_other_cases_are_named():
    assert matched("ghost:1;a:0", {"a": "a", "b": "b"}) == ({"a": 0.0}, ["ghost"])
    message = r"t\.csv: none of its cases is in the data: ghost; the data hold a; spell them alike"
    with pytest.raises(UsageError, match=message):
        matched("ghost:1", {"a": "a"})


def test_labels_that_a_study_carries_are_read_like_a_table():
    labels = {"idh": "Wild-Type", "grade": "WHO grade IV", "tert": "NOS", "mgmt": "whatever"}
    found = read_labels(labels, "study a")
    assert (found.pop("idh"), found.pop("grade")) == (0.0, 4.0)
    assert found.pop("hgg") == 1.0
    assert list(found) == ["tert"] and math.isnan(found["tert"])
    with pytest.raises(UsageError, match="study a: 'perhaps' is no label of idh; known: "):
        read_labels({"idh": "perhaps"}, "study a")

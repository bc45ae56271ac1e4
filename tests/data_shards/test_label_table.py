"""Label tables are read in many spellings and never guessed."""

import math
from pathlib import Path

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.label_table import known_counts, match_cases, read_label_table, read_labels


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


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
        ("1p/19q", "co-deleted", "1p19q", 1.0),
        ("1p19q_codeletion", "intact", "1p19q", 0.0),
        ("TERT promoter", "Mutated", "tert", 1.0),
        ("TERTp", "WT", "tert", 0.0),
        ("WHO grade", "IV", "grade", 4.0),
        ("grade", "Grade II", "grade", 2.0),
        ("grade", "WHO grade 3", "grade", 3.0),
        ("grade", "3.0", "grade", 3.0),
        ("grade", "HGG", "grade", None),
        ("grade", "LGG", "grade", None),
    ],
)
def test_values(tmp_path, column, value, task, expected):
    table = read_label_table(write(tmp_path, f"case;{column}\na;{value}\n"))
    assert list(table) == ["a"]
    found = table["a"][task]
    assert math.isnan(found) if expected is None else found == expected


def test_tab_separated_table_with_other_columns_and_bom(tmp_path):
    text = "\ufeffparticipant_id\tage\tidh\tgrade\nsub-01\t61\twildtype\t4\n\nsub-02\tn/a\tn/a\t2\n"
    table = read_label_table(write(tmp_path, text, "participants.tsv"))
    assert table["sub-01"] == {"idh": 0.0, "grade": 4.0}
    assert math.isnan(table["sub-02"]["idh"])
    assert known_counts(table.values(), "grade") == {2.0: 1, 4.0: 1}
    assert known_counts(table.values(), "idh") == {0.0: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,idh\n3,1\n", "no column names the cases; have age, idh"),
        ("case,idh\na,perhaps\n", "line 2 (a), idh: 'perhaps' is not a label of idh"),
        ("case,idh\na,1\na,0\n", "line 3 (a): two rows disagree on idh (1 and 0)"),
        ("case,idh,IDH status\na,1,1\n", "columns idh and IDH status both give idh"),
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


def test_rows_match_keys_and_subjects():
    cases = {"sub-01_ses-1": "sub-01", "sub-01_ses-2": "sub-01", "brats_7": "brats_7"}
    table = {"01": {"idh": 1.0}, "BraTS_7": {"idh": 0.0}}
    matched = match_cases(table, cases, Path("t.csv"))
    assert {key: labels["idh"] for key, labels in matched.items()} == {
        "sub-01_ses-1": 1.0,
        "sub-01_ses-2": 1.0,
        "brats_7": 0.0,
    }


def test_a_session_row_adds_to_its_subject():
    cases = {"p_a": "p", "p_b": "p"}
    matched = match_cases({"p": {"idh": 1.0}, "p_a": {"grade": 4.0}}, cases, Path("t.csv"))
    assert matched == {"p_a": {"idh": 1.0, "grade": 4.0}, "p_b": {"idh": 1.0}}


def test_unknown_cases_are_named():
    with pytest.raises(UsageError, match=r"t\.csv: 1 of 2 cases are not in the data: ghost"):
        match_cases({"ghost": {}, "a": {}}, {"a": "a"}, Path("t.csv"))


def test_labels_that_a_study_carries_are_read_like_a_table():
    labels = {"idh": "Wild-Type", "grade": "WHO grade IV", "tert": "NOS", "mgmt": "whatever"}
    found = read_labels(labels, "study a")
    assert (found.pop("idh"), found.pop("grade")) == (0.0, 4.0)
    assert list(found) == ["tert"] and math.isnan(found["tert"])
    with pytest.raises(UsageError, match="study a, idh: 'perhaps' is not a label of idh"):
        read_labels({"idh": "perhaps"}, "study a")

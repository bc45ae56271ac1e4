"""A table names every series; what is amiss in it is said with its line."""

import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest import find_studies


@pytest.fixture
def write(tmp_path):
    """Write a manifest beside `a.nii.gz` to `d.nii.gz`, a folder `e.nii` and a text `f.txt`."""
    for name in "abcd":
        (tmp_path / f"{name}.nii.gz").touch()
    (tmp_path / "e.nii").mkdir()
    (tmp_path / "f.txt").touch()

    def make(*lines, name="m.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
        return tmp_path / name

    return make


def test_series_sessions_segmentations_and_labels(write):
    manifest = write(
        "Subject;session;sequence;path;IDH;Age",
        "P1;1;T1w;a.nii.gz;mutant;50",
        "P1;1;seg;b.nii.gz;;50",
        "P1;2;FLAIR;c.nii.gz;wildtype;51",
        ";;;;;",
        "P2;;t1c;d.nii.gz;n/a;",
    )
    one, two, other = find_studies(manifest)
    assert (one.subject, one.session, two.session, other.session) == ("P1", "1", "2", None)
    assert list(one.series) == ["t1"] and one.seg.name == "b.nii.gz" and two.seg is None
    assert [dict(study.labels) for study in (one, two, other)] == [
        {"idh": "mutant"},
        {"idh": "wildtype"},
        {},
    ]
    assert list(other.series) == ["t1ce"] and other.layout == "csv"


def test_segmentation_as_a_column(write):
    manifest = write(
        "subject\tsequence\tpath\tseg",
        "P\tt1\ta.nii.gz\tc.nii.gz",
        "P\tt2\tb.nii.gz\tc.nii.gz",
        name="m.tsv",
    )
    (study,) = find_studies(manifest)
    assert list(study.series) == ["t1", "t2"] and study.seg.name == "c.nii.gz"


def test_names_of_every_kind(tmp_path):
    name = 'a "b"\n語, .nii'
    (tmp_path / name).touch()
    quoted = name.replace('"', '""')
    text = f'subject,sequence,path\n"李, 四",t1,"{quoted}"\n'
    (tmp_path / "m.csv").write_text(text, "utf-8", newline="")
    (study,) = find_studies(tmp_path / "m.csv")
    assert study.subject == "李, 四" and study.series["t1"].name == name


def test_second_unknown_sequence_is_left_out(write):
    manifest = write("subject,sequence,path", "P,x,a.nii.gz", "P,y,b.nii.gz")
    with pytest.warns(UserWarning, match="is not known"):
        (study,) = find_studies(manifest)
    assert study.series["other"].name == "a.nii.gz"
    assert [one.reason for one in study.left_out] == ["a second other beside a.nii.gz"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["subject,path", "P,a.nii.gz"], "sequence is missing among subject, path"),
        (["subject,sequence,path", ",t1,a.nii.gz"], "line 2: no subject"),
        (["subject,sequence,path", "P,t1,gone.nii"], r"line 2: no such file gone\.nii"),
        (["subject,sequence,path", "P,t1,e.nii"], r"line 2: e\.nii is a folder"),
        (["subject,sequence,path", "P,t1,f.txt"], r"line 2: f\.txt is no \.nii"),
        (["subject,sequence,path", "P,t1"], "line 2: 2 cells, the header has 3"),
        (
            ["subject,sequence,path", "P,t1,a.nii.gz", "Q,t1,a.nii.gz"],
            r"line 3: a\.nii\.gz is in line 2 already",
        ),
        (
            ["subject,sequence,path", "P,t1,a.nii.gz", "", "P,T1w,b.nii.gz"],
            "line 4: a second t1, line 2 has one",
        ),
        (
            ["subject,sequence,path,seg", "P,t1,a.nii.gz,b.nii.gz", "P,t2,c.nii.gz,d.nii.gz"],
            "line 3: a second segmentation, line 2 has one",
        ),
        (
            ["subject,sequence,path,tert", "P,t1,a.nii.gz,wt", "P,t2,b.nii.gz,mutant"],
            "line 3: tert is 'mutant' here and 'wt' in a row before",
        ),
        (["subject,sequence,path"], "needs a header line and at least one case"),
    ],
)
def test_errors_name_the_line(write, lines, message):
    with pytest.raises(UsageError, match=message) as caught:
        find_studies(write(*lines))
    assert "m.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_not_a_text_table(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00subject")
    with pytest.raises(UsageError, match="not a UTF-8 text table"):
        find_studies(tmp_path / "m.csv")

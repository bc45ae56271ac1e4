"""Brains are cut out of heads, against heads whose brain is known; bias fields are divided out."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.nifti import write_nifti
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.preprocess.brain import brain
from gliomoe.data_shards.preprocess.case import Case, Series
from gliomoe.data_shards.preprocess.config import BrainConfig, N4Config
from gliomoe.data_shards.preprocess.n4 import n4
from gliomoe.launch.cli import main

pytestmark = pytest.mark.slow

GRID = ((2.0, 2.0, 2.0), (100, 120, 96))
CONFIG = PreprocessConfig()


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def masked(series, inside):
    return replace(series, data=np.where(inside, series.data, np.float32(0)))


@pytest.fixture(scope="module")
def head(heads):
    """T1 and T2 of one head on grids of their own."""
    thick = ((1.8, 1.8, 5.0), (110, 130, 36))
    return {
        "t1": heads.scan("t1", heads.axial(*GRID), GRID[1]),
        "t2": heads.scan("t2", heads.axial(*thick), thick[1], seed=1),
    }


@pytest.mark.parametrize("sequence", ["t1", "t2"])
def test_the_brain_of_a_head_in_any_contrast(heads, sequence):
    """Turned, moved, of another size than the template, in a field of view with much air."""
    stretch = heads.turned((10, -4, 7), (9, -14, 22)) @ np.diag([0.95, 1.04, 0.93, 1])
    affine = heads.axial(GRID[0], GRID[1], centre=(5, -30, 10))
    series = heads.scan(sequence, affine, GRID[1], np.linalg.inv(stretch))
    truth = heads.brain_on(np.linalg.inv(stretch) @ affine, GRID[1])
    after = brain(Case({sequence: series}), CONFIG)
    found = after.series[sequence]
    assert dice(found.mask, truth) > 0.95
    np.testing.assert_array_equal(found.data, np.where(found.mask, series.data, 0))
    note = after.history["brain"]
    assert note["method"] == "atlas" and note["found_in"] == sequence
    assert note["volume_ml"] == pytest.approx(truth.sum() * 0.008, rel=0.08)


def test_one_mask_for_all_series_wide_enough_for_the_labels(head, heads):
    labels = np.zeros(GRID[1], np.uint8)
    labels[48:52, 58:62, 40:44] = 1
    labels[2:4, 58:62, 40:44] = 2  # in the air beside the head
    case = Case(head, Series(labels, head["t1"].affine))
    after = brain(case, CONFIG)
    note = after.history["brain"]
    assert note["found_in"] == "t1" and note["cut_out_of"] == ["t1", "t2"]
    assert note["labels_outside"] == 2 * 4 * 4
    assert after.series["t1"].mask[labels > 0].all() and after.seg is case.seg
    for one in after.series.values():
        assert dice(one.mask, heads.brain_on(one.affine, one.data.shape)) > 0.94


def test_what_is_extracted_already_is_left_alone(head, heads):
    """A whole study, or one series beside another with its skull."""
    inside = heads.brain_on(head["t1"].affine, GRID[1])
    extracted = masked(head["t1"], inside)
    case = Case({"t1": extracted})
    for step in (brain, n4):
        after = step(case, CONFIG)
        assert after.series["t1"] is extracted
    assert brain(case, CONFIG).history["brain"]["method"] == "none"
    mixed = brain(Case({"t1": extracted, "t2": head["t2"]}), CONFIG)
    assert mixed.series["t1"] is extracted
    assert mixed.history["brain"]["cut_out_of"] == ["t2"]
    # Air alone was set to 0: the skull is still to be cut off.
    airless = masked(head["t1"], head["t1"].data > 15)
    both = brain(Case({"t1": airless, "t2": head["t2"]}), CONFIG)
    assert both.history["brain"]["cut_out_of"] == ["t1", "t2"]
    none = brain(Case(head), PreprocessConfig(brain=BrainConfig(method="none")))
    assert none.series == head


def test_an_impossible_brain_is_refused(head):
    small = PreprocessConfig(brain=BrainConfig(max_ml=900))
    with pytest.raises(DataError, match=r"t1: the brain found has 1\d\d\d ml, not 500 to 900"):
        brain(Case(head), small)
    air = Series(np.full(GRID[1], 1, np.float32), head["t1"].affine)
    with pytest.raises(DataError, match="no tissue in the image"):
        brain(Case({"t1": air}), CONFIG)


PROGRAM = """#!{python}
import sys
import nibabel
image = nibabel.load(sys.argv[sys.argv.index("-i") + 1])
data = image.get_fdata()
if data.max() > 1e6:
    sys.exit("out of memory\\nand so on")
data[:20] = 0
nibabel.save(nibabel.Nifti1Image(data, image.affine), sys.argv[sys.argv.index("-o") + 1])
"""


@pytest.mark.parametrize(
    ("method", "name"), [("hd-bet", "hd-bet"), ("synthstrip", "mri_synthstrip")]
)
def test_programs_installed_apart(tmp_path, monkeypatch, head, method, name, capsys):
    config = PreprocessConfig(brain=BrainConfig(method=method, max_ml=1e5))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=f"{method} needs the program {name}"):
        brain(Case(head), config)
    write_nifti(tmp_path / "case" / "t1.nii.gz", head["t1"].data, head["t1"].affine)
    build = ["shards", "build", str(tmp_path / "case"), "--out", str(tmp_path / "out")]
    assert main([*build, "--brain.method", method]) == 2
    assert name in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / name).write_text(PROGRAM.format(python=sys.executable))
    (tmp_path / name).chmod(0o755)
    after = brain(Case(head), config)
    assert not after.series["t1"].mask[:20].any() and after.series["t1"].mask[20:].all()
    loud = Case({"t1": replace(head["t1"], data=head["t1"].data * 1e5)})
    with pytest.raises(DataError, match=rf"{name} failed with code 1 \(out of memory and so on\)"):
        brain(loud, config)


def test_a_bias_field_is_divided_out(heads, head):
    one = head["t1"]
    inside = heads.brain_on(one.affine, GRID[1])
    x = np.linspace(-1, 1, GRID[1][0])[:, None, None]
    y = np.linspace(-1, 1, GRID[1][1])[None, :, None]
    field = np.exp(0.5 * x - 0.3 * y**2).astype(np.float32)
    dim = Series(np.where(inside, one.data * field, 0), one.affine, inside)
    after = n4(Case({"t1": dim, "adc": dim}), CONFIG)
    assert after.series["adc"] is dim  # its values mean something by themselves
    left = after.series["t1"].data[inside] / one.data[inside]
    assert np.std(np.log(left)) < 0.35 * np.std(np.log(field + 0 * inside)[inside])
    low, high = after.history["n4"]["corrected"]["t1"]["field"]
    assert low < 0.8 and high > 1.2
    off = n4(Case({"t1": dim}), PreprocessConfig(n4=N4Config(mode="off")))
    assert off.series["t1"] is dim
    on = n4(
        Case({"adc": replace(dim, mask=None)}), PreprocessConfig(n4=N4Config(mode="on", grid=10))
    )
    assert list(on.history["n4"]["corrected"]) == ["adc"]

"""The loader's benchmark gives every arm a figure."""

import json

import pytest

from gliomoe.launch.cli import main

ARMS = {"nibabel_nii_gz", "monai_persistent_dataset", "torchio_queue"}


@pytest.mark.slow
def test_every_arm_has_a_figure(tmp_path, capsys):
    cohort = ["phantom", str(tmp_path / "cohort"), "--subjects", "2", "--spacing", "4"]
    assert main(cohort) == 0
    capsys.readouterr()
    options = ["--size", "32", "--shift", "8", "--seconds", "0.05", "--turns", "1", "--json"]
    assert main(["bench", "loader", str(tmp_path / "cohort"), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["peers"]) == ARMS
    assert set(result["variants"]) == {"float32", "float32_independent"}
    for arm in (result["ours"], *result["peers"].values(), *result["variants"].values()):
        assert arm["crops_per_s"] > 0
        assert len(arm["turns"]) == 1
    assert result["setup"]["cases"] == 2


def test_cases_that_are_too_small(tmp_path, capsys):
    assert main(["phantom", str(tmp_path / "cohort"), "--subjects", "1", "--spacing", "8"]) == 0
    assert main(["bench", "loader", str(tmp_path / "cohort")]) == 2
    assert "no case of NIfTI files with 96 voxels along every axis" in capsys.readouterr().err
    assert main(["bench"]) == 2

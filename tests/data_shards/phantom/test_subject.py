"""Phantom subjects: images, labels and tables fit together."""

import numpy as np
import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.scanner.protocols import SEQUENCES
from gliomoe.data_shards.phantom.subject import draw_subject, render

SPACING = 5.0


@pytest.fixture(scope="module")
def glioblastoma():
    """The first subject with a large enhancing ring, its images and segmentation."""
    config = CohortConfig(40, spacing=SPACING, seed=1)
    subjects = (draw_subject(config, number) for number in range(1, 41))
    subject = next(s for s in subjects if s.glioma.enhancement == "ring" and s.glioma.core_ml > 30)
    images = render(config, subject)
    return (
        subject,
        {name: image.voxels for name, image in images.series.items()},
        images.seg.voxels,
    )


def test_images_and_labels_agree(glioblastoma):
    subject, images, seg = glioblastoma
    assert set(images) == {"t1", "t1ce", "t2", "flair"}
    assert set(np.unique(seg)) == {0, 1, 2, 4}
    brain = images["t1"] > 0
    for image in images.values():
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image != 0, brain)  # background exactly 0
    assert not seg[~brain].any()

    def brightness(sequence: str, mask: np.ndarray) -> float:
        return images[sequence][mask].mean() / np.median(images[sequence][brain & (seg == 0)])

    assert brightness("t1ce", seg == 4) > 1.3 * brightness("t1", seg == 4)
    assert brightness("flair", seg == 2) > 1.15
    assert brightness("t2", seg > 0) > 1.0
    assert brightness("t1", seg == 1) < 1.05
    core_ml = np.isin(seg, (1, 4)).sum() * SPACING**3 / 1000
    assert core_ml == pytest.approx(subject.glioma.core_ml, rel=0.4)


def test_a_subject_is_the_same_at_every_spacing(glioblastoma):
    subject, _, coarse = glioblastoma
    config = CohortConfig(40, spacing=SPACING / 2, seed=1)
    fine = render(config, draw_subject(config, subject.number)).seg.voxels
    ratio = np.count_nonzero(fine) / np.count_nonzero(coarse)
    assert ratio == pytest.approx(8, rel=0.15)


def test_unlabelled_shares_and_sequences():
    config = CohortConfig(1000, protocol="mixed", unlabelled=True, seed=3)
    subjects = [draw_subject(config, number) for number in range(1, 1001)]
    shares = {"glioma": 0.3, "white matter disease": 0.2, "stroke": 0.05, "normal": 0.45}
    for diagnosis, share in shares.items():
        found = np.mean([s.diagnosis == diagnosis for s in subjects])
        assert found == pytest.approx(share, abs=0.01)
    assert min(len(s.session) for s in subjects) >= 1
    assert max(len(s.session) for s in subjects) == 5
    present = {name: np.mean([name in s.session for s in subjects]) for name in SEQUENCES}
    assert present["t1"] > 0.9
    assert all(0.3 < present[name] < 0.4 for name in ("flair", "dwi"))
    assert min(present.values()) > 0.03 and present["adc"] < present["dwi"]
    assert all("dwi" in s.session for s in subjects if "adc" in s.session)
    assert {s.protocol for s in subjects} == {"A", "B", "C"}
    assert {value for s in subjects for value in s.labels.values()} == {"n/a"}


def test_sequences_of_a_cohort():
    asked = CohortConfig(20, seed=3, sequences=("adc", "t2"))
    assert {tuple(draw_subject(asked, n).session) for n in range(1, 21)} == {("t2", "adc")}
    archive = CohortConfig(60, seed=3, unlabelled=True, sequences=("flair", "t2"))
    found = {tuple(draw_subject(archive, n).session) for n in range(1, 61)}
    assert found == {("t2",), ("flair",), ("t2", "flair")}


def test_missing_labels():
    config = CohortConfig(500, missing_labels=0.3, seed=3)
    labels = [draw_subject(config, number).labels for number in range(1, 501)]
    for marker in ("grade", "idh", "1p19q", "tert"):
        withheld = np.mean([row[marker] == "n/a" for row in labels])
        assert withheld == pytest.approx(0.3, abs=0.07)
    for row in labels:  # the type would give a withheld marker away
        assert row["who_type"] == "n/a" or "n/a" not in row.values()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"subjects": 0}, "subjects"),
        ({"protocol": "D"}, "protocol"),
        ({"spacing": 0.0}, "spacing"),
        ({"spacing": float("nan")}, "spacing"),
        ({"seed": -1}, "seed"),
        ({"glioma_share": 0.9}, "shares"),
        ({"missing_labels": 1.5}, "shares"),
        ({"resected_share": float("nan")}, "shares"),
        ({"form": "cooked"}, "form"),
        ({"sequences": ("t1", "ct")}, "sequences"),
        ({"sequences": ("t1", "t1")}, "sequences"),
    ],
)
def test_impossible_cohorts_are_refused(settings, word):
    with pytest.raises(UsageError, match=word):
        CohortConfig(**{"subjects": 3, **settings})

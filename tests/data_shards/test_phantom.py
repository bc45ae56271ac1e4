"""Phantom subjects: brains, tumours, signals and labels fit together."""

import numpy as np
import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.phantom.anatomy import (
    HeadShape,
    build_anatomy,
    draw_head_shape,
    tissue_maps,
)
from gliomoe.data_shards.phantom.composition import compose
from gliomoe.data_shards.phantom.grid import MODEL_GRID, WARP_GRID, Grid, brain_grid, smooth_noise
from gliomoe.data_shards.phantom.lesions import stroke, white_matter_lesions
from gliomoe.data_shards.phantom.markers import GLIOMA_TYPES
from gliomoe.data_shards.phantom.scanner import (
    PROTOCOLS,
    TISSUES,
    Acquisition,
    draw_session,
    signal,
)
from gliomoe.data_shards.phantom.subject import CohortConfig, draw_subject, render

SPACING = 5.0


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def anatomy():
    return build_anatomy(draw_head_shape(rng(), age=40), MODEL_GRID)


@pytest.fixture(scope="module")
def glioblastoma():
    """The first subject with a large enhancing ring, its images and segmentation."""
    config = CohortConfig(40, spacing=SPACING, seed=1)
    subjects = (draw_subject(config, number) for number in range(1, 41))
    subject = next(s for s in subjects if s.glioma.enhancement == "ring" and s.glioma.core_ml > 30)
    return subject, *render(config, subject)


@pytest.mark.slow
def test_template_is_what_nilearn_gives():
    from nilearn import datasets

    grid, ours = tissue_maps(1.0)
    images = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    ]
    theirs = np.stack([image.get_fdata(dtype=np.float32) for image in images])
    whole = Grid(theirs.shape[1:], 1.0, tuple(images[0].affine[:3, 3]))
    theirs = whole.sample(theirs, grid.points())
    brain = (theirs[2] == 1) & (grid.points()[2] >= whole.origin[2])
    np.testing.assert_allclose(ours[:2, brain], theirs[:2, brain], atol=1e-5)
    # Ours fills the holes of nilearn's mask and misses nothing of it.
    assert ours[2, brain].all()
    assert ours[2].sum() < 1.001 * brain.sum()


def test_resampling_agrees_with_sampling():
    field = smooth_noise(rng(), 6.0, channels=2)
    grid = brain_grid(2.3)
    np.testing.assert_allclose(
        MODEL_GRID.resample(field, grid), MODEL_GRID.sample(field, grid.points()), atol=1e-4
    )


def test_affine_gives_the_points():
    grid = brain_grid(4.0)
    corner = grid.affine @ [*(side - 1 for side in grid.shape), 1]
    np.testing.assert_allclose(grid.points()[:, -1, -1, -1], corner[:3], atol=1e-4)


def test_identity_shape_gives_the_template():
    still = HeadShape(np.zeros((3, *MODEL_GRID.shape), np.float32), atrophy=0.0)
    anatomy = build_anatomy(still, MODEL_GRID)
    assert 1500 < anatomy.brain.sum() * MODEL_GRID.spacing**3 / 1000 < 2100  # ml
    np.testing.assert_allclose(anatomy.position, MODEL_GRID.points())


@pytest.mark.parametrize("seed", range(4))
def test_deformation_does_not_fold(seed):
    shape = draw_head_shape(rng(seed), age=75)
    moved = shape.displacement + MODEL_GRID.points()
    gradients = np.stack([np.stack(np.gradient(axis, MODEL_GRID.spacing)) for axis in moved])
    jacobian = np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1)))
    assert jacobian.min() > 0


def test_csf_grows_with_age():
    def csf(age: float) -> float:
        shapes = [draw_head_shape(rng(seed), age) for seed in range(3)]
        return sum(build_anatomy(shape, WARP_GRID).csf.sum() for shape in shapes)

    assert csf(85) > 1.1 * csf(25)


def test_tissue_sums_to_the_brain(anatomy):
    lesions = {
        "lesion": white_matter_lesions(anatomy, rng()),
        "infarct": stroke(anatomy, rng()),
    }
    shares = compose(anatomy, lesions=lesions)
    assert set(shares) <= set(TISSUES)
    np.testing.assert_allclose(sum(shares.values()), anatomy.brain, atol=1e-5)
    assert min(share.min() for share in shares.values()) > -1e-6
    for lesion in lesions.values():
        assert 1 < lesion.sum() * MODEL_GRID.spacing**3 / 1000 < 150  # ml


def test_signal_is_the_textbook_one():
    def series(sequence: str, ti: float | None = None) -> Acquisition:
        return Acquisition(sequence, 3.0, 500.0, 10.0, ti, 1.0, 2, 0.0, 30.0, 1000.0)

    assert signal(series("t1"), 1e-3, 1e9, 0.8, 0) == pytest.approx(0.8)
    assert signal(series("t1"), 500.0, 1e9, 1.0, 0) == pytest.approx(1 - np.exp(-1))
    # The inversion time that nulls a tissue: T1 ln(2 / (1 + exp(-TR / T1))).
    null = 700 * np.log(2 / (1 + np.exp(-500 / 700)))
    assert signal(series("flair", null), 700.0, 100.0, 1.0, 0) == pytest.approx(0, abs=1e-9)
    # Only T1ce sees gadolinium: 1 / T1 rises by relaxivity times concentration.
    t1 = 1000 / (1000 / 1500 + 3.7 * 0.5)
    after = signal(series("t1ce"), 1500.0, 100.0, 1.0, 0.5)
    assert after == pytest.approx(signal(series("t1ce"), t1, 100.0, 1.0, 0))
    before = signal(series("t1"), 1500.0, 100.0, 1.0, 0)
    assert signal(series("t1"), 1500.0, 100.0, 1.0, 0.5) == before < after


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_contrast_of_each_sequence(protocol):
    for seed in range(5):
        for sequence, series in draw_session(protocol, rng(seed)).items():
            strong = int(series.field == 3.0)
            bright = {
                name: signal(series, t.t1[strong], t.t2[strong], t.density, np.mean(t.gadolinium))
                for name, t in TISSUES.items()
            }
            if sequence in ("t1", "t1ce"):
                assert bright["wm"] > bright["gm"] > bright["csf"]
            if sequence == "t1ce":
                assert bright["enhancing"] > 1.2 * bright["wm"]
            if sequence == "t2":
                assert bright["csf"] > bright["oedema"] > bright["gm"] > bright["wm"]
            if sequence == "flair":
                assert bright["oedema"] > bright["gm"] > bright["csf"]
                assert bright["solid"] > 1.2 * bright["mismatch"]


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
    assert brightness("t2", seg > 0) > 1.15
    assert brightness("t1", seg == 1) < 0.9
    core_ml = np.isin(seg, (1, 4)).sum() * SPACING**3 / 1000
    assert core_ml == pytest.approx(subject.glioma.core_ml, rel=0.4)


def test_a_subject_is_the_same_at_every_spacing(glioblastoma):
    subject, _, coarse = glioblastoma
    config = CohortConfig(40, spacing=SPACING / 2, seed=1)
    _, fine = render(config, draw_subject(config, subject.number))
    ratio = np.count_nonzero(fine) / np.count_nonzero(coarse)
    assert ratio == pytest.approx(8, rel=0.15)


def test_markers_follow_the_types():
    config = CohortConfig(600, seed=3)
    subjects = [draw_subject(config, number) for number in range(1, 601)]
    for name, kind in GLIOMA_TYPES.items():
        ours = [s for s in subjects if s.glioma.who_type == name]
        assert len(ours) / 600 == pytest.approx(kind.share, abs=0.02)
        assert {(s.labels["idh"], s.labels["1p19q"]) for s in ours} == {(kind.idh, kind.codeletion)}
        tert = np.mean([s.labels["tert"] == "mutant" for s in ours])
        assert tert == pytest.approx(kind.tert_mutant, abs=0.1)
        assert {int(s.labels["grade"]) for s in ours} == set(kind.grades)
        ages = [s.age for s in ours]
        assert min(ages) >= 18
        assert np.mean(ages) == pytest.approx(np.mean([m for m, _ in kind.age.values()]), abs=4)


def test_every_short_cohort_holds_every_type():
    for seed in range(5):
        config = CohortConfig(10, seed=seed)
        types = {draw_subject(config, number).glioma.who_type for number in range(1, 11)}
        assert types == set(GLIOMA_TYPES)


def test_unlabelled_shares_and_sequences():
    config = CohortConfig(1000, protocol="mixed", unlabelled=True, seed=3)
    subjects = [draw_subject(config, number) for number in range(1, 1001)]
    shares = {"glioma": 0.3, "white matter disease": 0.2, "stroke": 0.05, "normal": 0.45}
    for diagnosis, share in shares.items():
        found = np.mean([s.diagnosis == diagnosis for s in subjects])
        assert found == pytest.approx(share, abs=0.01)
    assert min(len(s.session) for s in subjects) >= 1
    assert np.mean(["t1" in s.session for s in subjects]) > 0.9
    assert 0.3 < np.mean(["flair" in s.session for s in subjects]) < 0.6
    assert {s.protocol for s in subjects} == {"A", "B", "C"}
    assert {value for s in subjects for value in s.labels.values()} == {"n/a"}


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
    ],
)
def test_impossible_cohorts_are_refused(settings, word):
    with pytest.raises(UsageError, match=word):
        CohortConfig(**{"subjects": 3, **settings})

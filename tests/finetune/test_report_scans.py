"""Embedded scans keep their place in millimetres, fit their budget and keep every label."""

import base64
import gzip
import io

import nibabel
import numpy as np
import pytest
from matplotlib.image import imread

from gliomoe.finetune.report.scans import Scan, embed, focus


def ball_scan(flip: bool = False) -> Scan:
    """A head with a bright tumour whose centre is at the RAS millimetres (12, -8, 20)."""
    affine = np.diag([-2.0 if flip else 2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [70.0 if flip else -70.0, -70.0, -60.0]
    index = np.indices((70, 70, 40)).reshape(3, -1)
    mm = (affine @ np.vstack([index, np.ones(index.shape[1])]))[:3]
    head = (np.linalg.norm(mm, axis=0) < 55).reshape(70, 70, 40)
    tumour = np.linalg.norm(mm - np.array([[12.0], [-8.0], [20.0]]), axis=0).reshape(70, 70, 40)
    image = np.where(head, 100.0, 0.0) + np.where(tumour < 12, 300.0, 0.0)
    seg = np.where(tumour < 12, 2, 0) + np.where(tumour < 6, 1, 0)
    return Scan(
        title="ball",
        images={"flair": image.astype(np.float32)},
        labels={"prediction": seg.astype(np.uint8)},
        affine=affine,
    )


def decode(data: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))


def centre(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return affine[:3] @ [*(np.array(np.nonzero(mask)).mean(1)), 1]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("budget", [10_000_000, 6_000])
def test_millimetres_survive_crop_turn_and_coarsening(flip: bool, budget: int) -> None:
    (case,) = embed([ball_scan(flip)], budget)
    image, seg = decode(case["images"]["flair"]), decode(case["labels"]["prediction"])
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.get_data_dtype() == np.uint8 and image.shape == seg.shape
    voxel = np.linalg.norm(image.affine[:3, :3], axis=0).max()
    bright = np.asarray(image.dataobj) > 180
    for mask, affine in ((bright, image.affine), (np.asarray(seg.dataobj) > 0, seg.affine)):
        np.testing.assert_allclose(centre(mask, affine), [12, -8, 20], atol=0.6 * voxel)
    np.testing.assert_allclose(case["focus"], [12, -8, 20], atol=1.5 * voxel)


def test_budget_is_kept_by_coarser_grids_and_only_then() -> None:
    rng = np.random.default_rng(0)
    ball = ball_scan()
    noisy = {name: image + rng.normal(0, 30, image.shape) for name, image in ball.images.items()}
    scan = Scan("noisy", noisy, ball.labels, ball.affine)
    (whole,) = embed([scan], 10_000_000)
    (small,) = embed([scan], 20_000)
    assert len(small["images"]["flair"]) + len(small["labels"]["prediction"]) <= 20_000
    fine, coarse = (decode(case["images"]["flair"]) for case in (whole, small))
    np.testing.assert_allclose(fine.header.get_zooms(), [2, 2, 3])
    assert all(
        c > f for c, f in zip(coarse.header.get_zooms(), fine.header.get_zooms(), strict=True)
    )
    assert set(np.unique(np.asarray(decode(small["labels"]["prediction"]).dataobj))) == {0, 2, 3}


def test_air_is_cropped_and_the_whole_head_kept() -> None:
    (case,) = embed([ball_scan()], 10_000_000)
    shape = decode(case["images"]["flair"]).shape
    assert shape == (59, 59, 40)  # 55 voxels of head and two of margin either side; 40 slices


def test_an_empty_image_and_an_empty_label_map_still_show() -> None:
    zero = np.zeros((8, 9, 10), np.float32)
    scan = Scan("empty", {"t1": zero}, {"prediction": zero.astype(np.uint8)}, np.eye(4))
    assert focus(scan) == (4, 4, 5)
    (case,) = embed([scan], 1_000_000)
    assert decode(case["images"]["t1"]).shape == (8, 9, 10)


def picture(scan: Scan) -> np.ndarray:
    (case,) = embed([scan], 10_000_000)
    png = base64.b64decode(case["slices"].removeprefix("data:image/png;base64,"))
    return imread(io.BytesIO(png))[..., :3]


def test_slices_paint_each_label_in_its_colour() -> None:
    red, green, blue = np.moveaxis(picture(ball_scan()), -1, 0)
    assert ((red > green + 0.2) & (green > blue)).sum() > 50  # vermillion, enhancing
    assert ((red > blue + 0.3) & (np.abs(red - green) < 0.1)).sum() > 50  # yellow, oedema


def test_slices_show_the_patients_right_at_the_left() -> None:
    axial = picture(ball_scan())[:, :126]  # the tumour lies on the patient's right, x > 0
    coloured = np.ptp(axial, axis=-1) > 0.1
    assert np.nonzero(coloured)[1].mean() < axial.shape[1] / 2

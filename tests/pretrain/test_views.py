"""Views: pure functions of seed and number, true crops, hidden sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.reading.codes import collate_codes
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.reader import IndexedReader, OrderConfig
from gliomoe.pretrain.samples.views import StudyViews, box_step, collate_pairs, make_views
from gliomoe.pretrain.sections import MaskConfig, ViewConfig

OFF = AugmentConfig(
    rotation=0, scale=0, translation=0, elastic_alpha=0, elastic_sigma=0, intensity=0, noise=0
)
VIEWS = ViewConfig(size=16, shift=4)


def samples(shards, numbers=range(4), ranges=OFF, views=VIEWS, seed=0):
    data = StudyViews(
        IndexedReader(ShardSet.open(shards), OrderConfig(), seed), views, ranges, 4, seed
    )
    return [data[n] for n in numbers]


def views_of(pairs):
    return make_views(collate_pairs(pairs), 16, 4, MaskConfig())


def test_a_sample_depends_on_seed_and_number_alone(shards):
    one = views_of(samples(shards, ranges=AugmentConfig()))
    later = views_of(samples(shards, range(6), AugmentConfig())[:4])
    assert torch.equal(one.visible.voxels, later.visible.voxels)
    assert torch.equal(one.mask.keep, later.mask.keep)
    other = views_of(samples(shards, ranges=AugmentConfig(), seed=1))
    assert not torch.equal(one.mask.keep, other.mask.keep)


def test_without_augmentation_views_are_crops_of_the_box(shards):
    pairs = samples(shards)
    views = views_of(pairs)
    at = 0
    for view in range(2):
        for pair in pairs:
            d, h, w = pair.draws[view].start
            expected = (
                collate_codes([pair.box]).decode().voxels[:, 0, d : d + 16, h : h + 16, w : w + 16]
            )
            found = views.complete.voxels[at : at + len(expected), 0]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
            at += len(expected)
    assert at == len(views.complete.voxels)


def test_hidden_sequences_are_targets_only(shards):
    hidden = 0
    for pair in samples(shards, range(16)):
        for draw in pair.draws:
            assert draw.visible.any()
            hidden += int((~draw.visible).sum())
    assert hidden > 0
    pairs = samples(shards)
    views = views_of(pairs)
    shown = torch.cat([d.visible for view in range(2) for d in [p.draws[view] for p in pairs]])
    assert torch.equal(views.visible.voxels, views.complete.voxels[shown])
    assert torch.equal(views.visible.study, views.complete.study[shown])
    assert set(views.visible.study.tolist()) == set(range(8))
    everything = samples(shards, views=replace(VIEWS, hide=False))
    assert all(d.visible.all() for p in everything for d in p.draws)


def test_targets_are_free_of_noise_and_background_stays_empty(shards):
    noisy = views_of(samples(shards, ranges=replace(OFF, noise=0.05)))
    clean = views_of(samples(shards))
    torch.testing.assert_close(noisy.complete.voxels, clean.complete.voxels)
    assert torch.equal(noisy.visible.voxels == 0, clean.visible.voxels == 0)
    assert not torch.equal(noisy.visible.voxels, clean.visible.voxels)


def test_sessions_of_a_subject_share_its_number(shards):
    pairs = samples(shards, range(8))
    number = {pair.box.key: pair.subject for pair in pairs}
    assert len(number) == 8
    assert number["case-000"] == number["case-001"] != number["case-002"]
    assert len(set(number.values())) == 4


class Damaged(IndexedReader):
    """A reader to which some studies are damaged."""

    keys: tuple[str, ...] = ()

    def study(self, n):
        study = super().study(n)
        if study.record["key"] in self.keys:
            raise DataError(f"{study.record['key']}: damaged")
        return study


def test_a_damaged_study_is_replaced_and_changes_no_other(shards):
    reader = Damaged(ShardSet.open(shards), OrderConfig(), 0)
    data = StudyViews(reader, VIEWS, OFF, 4, 0)
    before = [data[n] for n in range(8)]
    reader.keys = (before[3].box.key,)
    after = [data[n] for n in range(8)]
    assert collate_pairs(after).damaged == (f"{before[3].box.key}: damaged",)
    assert after[3].box.key != before[3].box.key
    for n in {*range(8)} - {3}:
        assert np.array_equal(after[n].box.codes, before[n].box.codes)
    reader.keys = tuple(f"case-{n:03d}" for n in range(8))
    with pytest.raises(DataError, match="10 studies in a row are damaged, the last: case-00"):
        data[0]


@pytest.mark.parametrize(("shift", "step"), [(0, 1), (1, 1), (4, 4), (8, 8), (24, 16), (100, 32)])
def test_views_begin_everywhere_though_boxes_do_not(shift, step):
    assert box_step(shift) == step
    begins = {step * k + s for k in range(4) for s in range(shift + 1)}
    assert begins >= set(range(4 * step))

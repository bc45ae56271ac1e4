"""Training learns, resumes exactly, and leaves a run that evaluation can open."""

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune import artefacts, loop
from gliomoe.finetune.artefacts import ArtefactConfig
from gliomoe.finetune.cases import labelled_cases
from gliomoe.finetune.config import CropConfig, FinetuneConfig, OptimConfig, TrainConfig
from gliomoe.finetune.dataset import (
    CropDataset,
    candidate_centres,
    crop_start,
    fitting_crop,
    kept_sequences,
    mirrored,
    read_case,
)
from gliomoe.finetune.freeze import freeze
from gliomoe.finetune.loop import FoldData, train_fold, train_step
from gliomoe.finetune.losses import prevalence_weights
from gliomoe.finetune.optim import learning_rate_factor, make_optimizer
from gliomoe.finetune.validation import inference_config
from gliomoe.models.model import Model
from gliomoe.models.registry import create_model

SMALL = {
    "patch_size": 4, "width": 48, "depth": 2, "hidden": 64,
    "experts": 4, "expert_hidden": 32, "stem_hidden": 32,
}  # fmt: skip
QUIET = ArtefactConfig(bias_field=0, kspace_noise=0, spike=0)


def config_of(folder: Path, **train: int) -> FinetuneConfig:
    return FinetuneConfig(
        data=folder,
        out=folder / "out",
        labels=folder / "labels.tsv",
        tasks=("seg", "idh", "grade"),
        crop=CropConfig(size=(16, 16, 16)),
        train=TrainConfig(precision="fp32", **{"epochs": 4, "steps_per_epoch": 3, **train}),
        optim=OptimConfig(name="adamw", lr=3e-3),
        artefacts=QUIET,
    )


def small_model(config: FinetuneConfig, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    model = create_model("gliomoe_tiny", config.tasks, **SMALL)
    freeze(model, config.freeze, config.train_blocks, config.lora)
    return model


def test_windows_of_prediction_may_be_larger_than_crops(tmp_path):
    config = config_of(tmp_path)
    assert inference_config(config).window == (16, 16, 16)
    wide = replace(config, crop=replace(config.crop, window=(64, 48, 32)))
    assert inference_config(wide).window == (64, 48, 32)
    with pytest.raises(ValueError, match="at least 1 along each axis"):
        replace(config.crop, window=(64, 0, 32))


@pytest.fixture(scope="module")
def fold(ball_shards, write_labels) -> tuple[FinetuneConfig, FoldData]:
    folder = ball_shards(range(8), without_seg=(1,))
    config = config_of(folder)
    write_labels(config.labels, range(7))
    shards = ShardSet.open(folder)
    cases = labelled_cases(shards, config.labels, config.tasks)
    data = FoldData(
        number=0,
        train=CropDataset(shards, cases[:6], config.crop, QUIET, seed=0),
        validation=[read_case(shards, case) for case in cases[6:]],
        class_weights={task: prevalence_weights({}, task) for task in config.markers},
    )
    return config, data


@pytest.mark.slow
def test_a_few_dozen_steps_find_the_tumour(fold, tmp_path):
    config, data = fold
    train = replace(config.train, epochs=20, steps_per_epoch=6, validate_every=5)
    config = replace(config, train=train)
    validated = train_fold(small_model(config), data, config, tmp_path)
    assert validated.dice["WT"] > 0.8
    assert validated.dice["ET"] > 0.5
    assert set(validated.markers) == {"case-6", "case-7"}
    assert list(validated.log_loss) == ["idh", "grade"]
    assert list(tmp_path.glob("events.out.tfevents*"))


@pytest.mark.parametrize("how", ["none", "lora"])
def test_an_interrupted_fold_ends_as_an_uninterrupted_one(fold, tmp_path, monkeypatch, how):
    config, data = fold
    config = replace(config, freeze=how)
    whole, halves = small_model(config), small_model(config)
    first = train_fold(whole, data, config, tmp_path / "whole")

    def stop(*args: object) -> None:
        if args[-1] == 7:  # in the middle of the third epoch
            raise KeyboardInterrupt
        return train_step(*args)

    monkeypatch.setattr(loop, "train_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_fold(halves, data, config, tmp_path / "halves")
    monkeypatch.undo()
    fresh = small_model(config, seed=99)
    second = train_fold(fresh, data, config, tmp_path / "halves")
    assert asdict(first) == asdict(second)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_early_stop_keeps_the_best_weights(fold, tmp_path, monkeypatch):
    config, data = fold
    config = replace(config, train=replace(config.train, epochs=50, steps_per_epoch=1, patience=2))
    scores = iter([0.1, 0.5, 0.4, 0.3])
    seen = []

    def judge(model: Model, *_: object) -> loop.Validated:
        seen.append({name: t.clone() for name, t in model.state_dict().items()})
        return loop.Validated(next(scores), {}, {}, {})

    monkeypatch.setattr(loop, "validate", judge)
    model = small_model(config)
    assert train_fold(model, data, config, tmp_path).score == 0.5
    assert len(seen) == 4
    assert all(torch.equal(t, seen[1][name]) for name, t in model.state_dict().items())


def test_a_loss_that_is_not_finite_names_the_studies(fold):
    config, data = fold
    model = small_model(config)
    with torch.no_grad():
        model.heads["seg"].logits.bias.fill_(math.nan)
    optimizer = make_optimizer(model, config.optim)
    before = {name: t.clone() for name, t in model.encoder.state_dict().items()}
    with pytest.raises(DataError, match=r"fold 0, step 3: the loss is nan \(studies case-"):
        train_step(model, optimizer, collate([data.train[0]]), data, config, 3)
    assert all(torch.equal(t, before[name]) for name, t in model.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("how", "moving"),
    [
        ("encoder", ("heads.",)),
        ("partial", ("heads.", "encoder.blocks.1.", "encoder.norm.", "encoder.detail.")),
    ],
)
def test_what_is_frozen_keeps_its_weights(fold, how, moving):
    config, data = fold
    config = replace(config, freeze=how, train_blocks=1)
    model = small_model(config)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    optimizer = make_optimizer(model, config.optim)
    train_step(model, optimizer, collate([data.train[0], data.train[1]]), data, config, 0)
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert all(name.startswith(moving) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in moving)


def test_rates_warm_up_and_decay(fold):
    optim = replace(fold[0].optim, lr=1e-2)
    assert learning_rate_factor(50, 100, replace(optim, power=0.9)) == pytest.approx(0.5**0.9)
    assert learning_rate_factor(0, 100, replace(optim, warmup=9)) == pytest.approx(0.1)
    cosine = replace(optim, schedule="cosine")
    factors = [learning_rate_factor(step, 100, cosine) for step in (0, 25, 50, 100)]
    assert factors == pytest.approx([1, 0.5 + 0.5**1.5, 0.5, 0])


def test_crops_depend_on_their_number_alone(fold):
    config, data = fold
    a, b = data.train[13], data.train[13]
    assert torch.equal(a.voxels, b.voxels) and a.key == b.key
    assert {data.train[n].key for n in range(6)} == {f"case-{n}" for n in range(6)}
    unlabelled = next(s for s in map(data.train.__getitem__, range(6)) if s.key == "case-1")
    assert math.isnan(unlabelled.targets["seg"]) and not unlabelled.seg.any()


def test_crops_are_no_larger_than_the_largest_grid(fold):
    config, data = fold
    crop = replace(config.crop, size=(64, 16, 20))
    shards, cases = data.train._shards, data.train._cases
    crop = fitting_crop(crop, [shards.entry(case.position).shape for case in cases])
    large = CropDataset(shards, cases, crop, QUIET, seed=0)
    assert all(large[n].seg.shape == (20, 16, 20) for n in range(6))
    assert fitting_crop(crop, [(8, 30, 8), (30, 8, 10)]).size == (20, 16, 10)


def test_crops_lose_sequences_by_their_number(fold):
    config, data = fold
    crop = replace(config.crop, sequence_dropout=0.5)
    dropping = CropDataset(data.train._shards, data.train._cases, crop, QUIET, seed=0)
    kept = [tuple(dropping[n].sequence.tolist()) for n in range(40)]
    assert kept == [tuple(dropping[n].sequence.tolist()) for n in range(40)]
    assert set(kept) == {(0,), (3,), (0, 3)}  # T1, FLAIR, both; never none
    number = kept.index((3,))
    assert torch.equal(dropping[number].voxels[0], data.train[number].voxels[1])
    generator = torch.Generator().manual_seed(0)
    counts = Counter(len(kept_sequences("abcd", 1.0, generator)) for _ in range(50))
    assert counts == {1: 50} and kept_sequences("abcd", 0.0, generator) == list("abcd")
    each = Counter(name for _ in range(2000) for name in kept_sequences("abcd", 0.3, generator))
    # 0.7, and a quarter of the times that all four would go.
    assert all(count / 2000 == pytest.approx(0.7 + 0.3**4 / 4, abs=0.04) for count in each.values())


def test_crops_are_mirrored_with_their_masks(fold):
    config, data = fold
    generator = torch.Generator().manual_seed(0)
    crop = replace(data.train[0], seg=(data.train[0].voxels[0] > 0.5).to(torch.uint8))
    seen = set()
    for _ in range(60):
        turned = mirrored(crop, 0.5, generator)
        assert torch.equal(turned.seg, (turned.voxels[0] > 0.5).to(torch.uint8))
        ways = product([()], *(((), (axis,)) for axis in (1, 2, 3)))
        axes = [sum(way, ()) for way in ways]
        seen |= {a for a in axes if torch.equal(turned.voxels, crop.voxels.flip(a))}
    assert len(seen) == 8
    assert torch.equal(mirrored(crop, 0.0, generator).voxels, crop.voxels)


def test_most_crops_show_the_tumour(fold):
    config, data = fold
    crops = [data.train[n] for n in range(60)]
    shown = [bool(crop.seg.any()) for crop in crops if crop.key != "case-1"]
    assert np.mean(shown) > 0.6


def test_centres_lie_where_they_say(fold):
    _, data = fold
    case = data.validation[0]
    *labels, tissue = candidate_centres(case, np.random.default_rng(0))
    assert [int(case.seg[tuple(group.T)].unique()) for group in labels] == [1, 2, 3]
    assert (case.voxels[:, *tissue.T] != 0).any(0).all()


@pytest.mark.parametrize(
    ("centre", "shape", "expected"),
    [((5, 5, 5), (20, 20, 20), (0, 0, 0)), ((10, 19, 12), (20, 20, 8), (2, 4, -4))],
)
def test_crops_stay_inside_the_grid(centre, shape, expected):
    assert crop_start(torch.tensor(centre), shape, (16, 16, 16)) == expected


def test_artefacts_change_tissue_only_and_repeat(fold):
    config, data = fold
    sample = data.validation[0]
    every = ArtefactConfig(bias_field=1, kspace_noise=1, spike=1)
    drawn = artefacts.draw(every, 2, torch.Generator().manual_seed(1))
    assert drawn == artefacts.draw(every, 2, torch.Generator().manual_seed(1))
    once, again = artefacts.apply(sample, drawn), artefacts.apply(sample, drawn)
    assert torch.equal(once.voxels, again.voxels)
    assert ((once.voxels != 0) <= (sample.voxels != 0)).all()
    assert not torch.equal(once.voxels, sample.voxels)
    nothing = artefacts.draw(QUIET, 2, torch.Generator())
    assert torch.equal(artefacts.apply(sample, nothing).voxels, sample.voxels)
    crops = CropDataset(data.train._shards, data.train._cases, config.crop, every, seed=0)
    assert torch.equal(crops[0].voxels, crops[0].voxels)
    assert not torch.equal(crops[0].voxels, data.train[0].voxels)


@pytest.mark.parametrize("shape", [(5, 8, 7), (1, 4, 3)])
def test_the_bias_field_is_that_of_torchio(shape):
    import torchio

    coefficients = torch.rand(20, generator=torch.Generator().manual_seed(0)).sub(0.5).tolist()
    expected = torchio.BiasField(coefficients=coefficients, order=3)(torch.ones(1, *shape))
    torch.testing.assert_close(artefacts.bias_field(shape, coefficients), expected[0])


def test_summary_is_plain_json(fold, tmp_path):
    config, data = fold
    config = replace(config, train=replace(config.train, epochs=1, steps_per_epoch=1))
    validated = train_fold(small_model(config), data, config, tmp_path)
    json.dumps(asdict(validated), allow_nan=False)

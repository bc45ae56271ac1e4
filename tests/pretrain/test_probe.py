"""The online probe: closed form against scikit-learn, and no trace of it in the training."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import Ridge

from gliomoe.data_shards.batch import collate
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.study import Study
from gliomoe.models.checkpoint import load_encoder
from gliomoe.models.registry import create_model
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.build import build
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.export import export
from gliomoe.pretrain.monitoring.probe import (
    Probe,
    ProbeSet,
    asked_layers,
    encode_box,
    tile,
)
from gliomoe.pretrain.monitoring.probe_figures import (
    StudyTokens,
    marker_figures,
    ridge,
    tumour_figures,
)
from gliomoe.pretrain.sections import ProbeConfig
from gliomoe.pretrain.train import pretrain

CPU = torch.device("cpu")


def labelled_study(number: int) -> Study:
    """A grey cube with a bright one in it; IDH mutant where that one is large."""
    rng = np.random.default_rng(number)
    side, mutant = 20, number % 2
    volume = 500 + 50 * rng.standard_normal((side,) * 3).astype(np.float32)
    seg = np.zeros(volume.shape, np.uint8)
    first = rng.integers(2, 6, 3)
    place = tuple(slice(int(a), int(a) + (10 if mutant else 6)) for a in first)
    seg[place] = 2
    volume[place] += 600
    return Study(
        key=f"case-{number:03d}",
        subject=f"case-{number:03d}",
        volumes={"flair": volume},
        affine=np.diag([3.0, 3.0, 3.0, 1.0]),
        seg=seg,
        fingerprint=f"{number + 500:032x}",
        layout="synthetic",
        labels={"idh": "mutant" if mutant else "wildtype", "grade": "n/a"},
    )


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A labelled shard set of eight studies."""
    folder = tmp_path_factory.mktemp("labelled")
    encoded = (encode_study(labelled_study(n)) for n in range(8))
    seal(folder, list(write_shards(folder, encoded, 100_000)), {"spacing": 3.0})
    return folder


@pytest.fixture
def config(config):
    """A run of four small steps."""
    run = replace(config.run, steps=4, checkpoint_every=2)
    return replace(config, run=run, monitor=replace(config.monitor, pictures_every=2))


@pytest.fixture
def probed(config, labelled):
    """A run with a probe every other step."""
    probe = ProbeConfig(data=(str(labelled),), every=8, studies=8, folds=2)
    return replace(config, probe=probe)


def lines(run, name):
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_ridge_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)) + 3, rng.standard_normal(60)
    joint = torch.from_numpy(np.column_stack([x, np.ones(60), y]))
    layer = ridge(joint.T @ joint)
    penalty = 1e-4 * x.var(0).mean() + 1e-12
    wanted = Ridge(alpha=60 * penalty).fit(x, y)
    np.testing.assert_allclose(layer[:-1], wanted.coef_, rtol=1e-9)
    assert float(layer[-1]) == pytest.approx(wanted.intercept_)


def test_tumour_figures_equal_a_slow_reference():
    """Study by study, fold by fold, with scikit-learn and loops."""
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    studies = []
    for number in range(6):
        tokens = torch.randn(40, 4, generator=generator)
        noise = 0.3 * torch.randn(40, generator=generator)
        tumour = (tokens[:, 0] + noise).clamp(0, 1) * (tokens[:, 0] > 0.4)
        studies.append(StudyTokens(tokens, tumour, number % 3))
    studies.append(StudyTokens(torch.randn(9, 4, generator=generator), torch.zeros(9), 0))
    dices, areas = [], []
    for fold in range(3):
        train = [study for study in studies if study.fold != fold]
        x = torch.cat([study.tokens for study in train]).double().numpy()
        y = torch.cat([study.tumour for study in train]).double().numpy()
        model = Ridge(alpha=len(x) * (1e-4 * x.var(0).mean() + 1e-12)).fit(x, y)

        def dice(study, threshold, model=model):
            painted = model.predict(study.tokens.double().numpy()) > threshold
            truth = study.tumour.double().numpy()
            return 2 * truth[painted].sum() / (painted.sum() + truth.sum())

        ill = [study for study in train if study.tumour.any()]
        thresholds = np.linspace(0.05, 0.95, 19)
        best = max(thresholds, key=lambda t: sum(dice(study, t) for study in ill))
        for study in studies:
            if study.fold == fold and study.tumour.any():
                dices.append(dice(study, best))
                made = model.predict(study.tokens.double().numpy())
                areas.append(roc_auc_score((study.tumour > 0.5).numpy(), made))
    figures = tumour_figures(studies, 3, 4, CPU)
    assert figures["tumour_dice"] == pytest.approx(np.mean(dices), rel=1e-6)
    assert figures["tumour_auc"] == pytest.approx(np.mean(areas), rel=1e-6)


def test_markers_need_both_classes_in_every_fold():
    rng = np.random.default_rng(0)
    idh = np.arange(20) % 2.0
    pooled = rng.standard_normal((20, 6)) + 3 * idh[:, None]
    rare = np.array([1.0] * 2 + [0.0] * 18)
    unknown = np.full(20, np.nan)
    labels = {"idh": idh, "rare": rare, "unknown": unknown}
    figures = marker_figures(pooled, labels, [str(i) for i in range(20)], 4)
    assert figures == {"idh_auc": 1.0}


@pytest.mark.parametrize("shape", [(16, 16, 16), (20, 33, 5)])
def test_tiles_cover_each_voxel_once(shape):
    seen = np.zeros(shape, int)
    for start in tile(shape, 16):
        box = tuple(slice(max(0, a), max(0, a + 16)) for a in start)
        seen[box] += 1
    assert (seen == 1).all()


def test_tokens_and_their_share_of_tumour_belong_together(config, labelled):
    torch.manual_seed(0)
    encoder = build(config)[1].encoder.eval()
    sample = ShardSet.open(labelled).read(0, (0, 0, 0), (16, 16, 16))
    with torch.no_grad():
        tokens, tumour = encode_box(encoder, sample, CPU)
    wanted = [
        float((sample.seg[d : d + 4, h : h + 4, w : w + 4] > 0).float().mean())
        for d, h, w in product(range(0, 16, 4), repeat=3)
    ]
    assert len(tokens) == len(tumour) == 64  # all of it is tissue
    batch = collate([sample])
    with torch.no_grad():
        layers = encoder.layers(batch, tissue_positions(batch, 4))[1]
    assert asked_layers(encoder.depth) == [1, 3, 5]
    for place, layer in enumerate(layers[1::2]):
        part = tokens[:, place * encoder.width : (place + 1) * encoder.width].double()
        centred = layer - layer.mean(1, keepdim=True)
        np.testing.assert_allclose(part, centred / centred.std(1, correction=0)[:, None], atol=1e-4)
    np.testing.assert_allclose(tumour, wanted, rtol=1e-6)


def test_the_probe_leaves_no_trace_in_the_training(config, probed, tmp_path):
    assert pretrain(config)
    probed = replace(probed, run=replace(probed.run, out=tmp_path / "probed"))
    assert pretrain(probed)
    assert lines(config.run.out, "metrics.jsonl") == lines(probed.run.out, "metrics.jsonl")
    plain, asked = (
        load_file(checkpoints.newest(run.run.out).folder / checkpoints.WEIGHTS)
        for run in (config, probed)
    )
    assert all(torch.equal(plain[name], asked[name]) for name in plain)
    rows = lines(probed.run.out, "probe.jsonl")
    assert [row["steps"] for row in rows] == [0, 2, 4]
    assert all(0 <= row[name] <= 1 for row in rows for name in ("tumour_dice", "tumour_auc"))
    assert rows[0]["idh_auc"] == 1.0  # bright cubes of two sizes
    assert "grade_4_auc" not in rows[0]


def test_the_first_row_is_of_random_weights_and_a_continued_run_repeats_the_rest(probed, killed_at):
    short = replace(probed, run=replace(probed.run, out=probed.run.out.with_name("short")))
    assert pretrain(probed)
    with killed_at(3):
        pretrain(short)
    assert [row["steps"] for row in lines(short.run.out, "probe.jsonl")] == [0, 2]
    assert pretrain(short)
    rows = lines(short.run.out, "probe.jsonl")
    assert rows == lines(probed.run.out, "probe.jsonl")
    torch.manual_seed(probed.run.seed)
    fresh = build(probed)[1].encoder
    studies = ProbeSet.open(probed)
    assert rows[0] == {"steps": 0, **Probe(probed, studies, fresh, "fp32").run()}


def test_the_encoder_that_is_exported_is_asked(probed, tmp_path):
    probed = replace(probed, optim=replace(probed.optim, ema=0.9))
    assert pretrain(probed)
    export(probed.run.out, tmp_path / "encoder")
    model = create_model(probed.model.name, (), **probed.model.overrides)
    load_encoder(model, tmp_path / "encoder")
    found = Probe(probed, ProbeSet.open(probed), model.encoder, "fp32").run()
    assert lines(probed.run.out, "probe.jsonl")[-1] == {"steps": 4, **found}
    trained = load_file(checkpoints.newest(probed.run.out).folder / checkpoints.WEIGHTS)
    assert not torch.equal(trained["encoder.norm.weight"], model.encoder.norm.weight)


RANK = """
import json, pickle, sys, torch
import torch.distributed as dist
from datetime import timedelta
from gliomoe.pretrain.export import export
from gliomoe.pretrain.monitoring.probe import Probe, ProbeSet
from gliomoe.pretrain.build import build

with open(sys.argv[1], "rb") as file:
    config = pickle.load(file)
rank, store = int(sys.argv[3]), "file://" + sys.argv[2]
dist.init_process_group("gloo", store, timedelta(seconds=100), rank=rank, world_size=2)
torch.manual_seed(config.run.seed)
encoder = build(config)[1].encoder
print(json.dumps(Probe(config, ProbeSet.open(config), encoder, "fp32").run()))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_two_ranks_find_what_one_finds(probed, tmp_path, together):
    """Shared out, or, with experts on both, each doing all of it."""
    if together:
        probed = replace(probed, engine=replace(probed.engine, expert_parallel=2))
    torch.manual_seed(probed.run.seed)
    alone = Probe(probed, ProbeSet.open(probed), build(probed)[1].encoder, "fp32").run()
    settings = tmp_path / "config.pickle"
    settings.write_bytes(pickle.dumps(probed))
    command = [sys.executable, "-c", RANK, str(settings), str(tmp_path / "store")]
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=120)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for found in map(json.loads, said):
        assert found == pytest.approx(alone, rel=1e-6)


def test_a_set_that_does_not_fit_is_refused(config, probed, labelled, shards, tmp_path):
    with pytest.raises(UsageError, match="8 labelled subjects cannot fill probe.folds"):
        ProbeSet.open(replace(probed, probe=replace(probed.probe, folds=9)))
    with pytest.raises(UsageError, match="0 labelled subjects"):
        ProbeSet.open(replace(probed, probe=replace(probed.probe, data=(str(shards),))))
    other = tmp_path / "other"
    encoded = (encode_study(labelled_study(n)) for n in range(2))
    seal(other, list(write_shards(other, encoded, 100_000)), {"spacing": 2.0})
    with pytest.raises(UsageError, match="preprocessed otherwise"):
        ProbeSet.open(replace(probed, probe=replace(probed.probe, data=(str(other),))))

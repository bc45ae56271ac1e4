"""Studies that pretrain: what is planned, and one of each kind of run from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.launch.cli import main
from gliomoe.launch.studies.ablations import SHIPPED, read_variants
from gliomoe.launch.studies.config import PretrainStudyConfig, merged, read_tables
from gliomoe.launch.studies.sizes import read_sizes
from gliomoe.launch.studies.subset import write_subset


@pytest.fixture
def config(balls, tmp_path):
    return PretrainStudyConfig(
        data=balls.train, test=(f"A={balls.test}",), out=tmp_path / "study", shots=(4,),
        finetune=balls.finetune, unlabelled=(str(balls.train),), pretrain=balls.pretrain,
    )  # fmt: skip


def test_every_shipped_variant_fits_the_options(config):
    pretrainings, grid = read_variants(config, None, ())
    variants = read_tables(SHIPPED)
    assert list(grid.arms) == ["full", *variants]
    own = {one.name: one for one in pretrainings}
    assert set(own) == {"full", *(name for name in variants if "pretrain" in variants[name])}
    full = own["full"].config
    for name, one in own.items():
        assert (replace(one.config, run=full.run) == full) == (name == "full")
    sources = {name: Path(options.from_).parent.name for name, options in grid.arms.items()}
    assert sources == {name: name if name in own else "full" for name in grid.arms}
    assert grid.arms["frozen"].freeze == "encoder"


def test_settings_of_a_model_are_added_to_those_before():
    before = {"model": {"name": "a", "set": ["top_k=1"]}, "views": {"size": 16}}
    assert merged(before, {"model": {"set": ["fusion=mean"]}}) == {
        "model": {"name": "a", "set": ["top_k=1", "fusion=mean"]}, "views": {"size": 16},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "only", "message"),
    [
        ("[a]\npretrain.mask.ratio = 0.5", ["b"], "--only b: no such variant; there are a"),
        ("[a]\nmask.ratio = 0.5", [], "a: give its changes as `pretrain.section.key` or"),
        ("[full]\npretrain.mask.ratio = 0.5", [], "full is the recipe as it is"),
        ("[a]\npretrain.mask.rate = 0.5", [], "a: unknown key mask.rate; perhaps mask.ratio"),
        ('[a]\npretrain.model.set = ["top=1"]', [], "pretraining a: unknown setting 'top'"),
    ],
)
def test_variants_that_do_not_fit_are_refused(config, tmp_path, text, only, message):
    path = tmp_path / "variants.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_variants(config, path, only)


def test_a_subset_holds_studies_as_they_are_and_fewer_are_among_more(balls, tmp_path):
    whole = ShardSet.open(balls.train)
    keys = {}
    for count in (3, 6):
        write_subset(whole, count, 0, tmp_path / str(count))
        part = ShardSet.open(tmp_path / str(count))
        keys[count] = [part.entry(i).key for i in range(len(part))]
        assert len(set(keys[count])) == count
        for i, key in enumerate(keys[count]):
            assert part.bytes_of(i) == whole.bytes_of(whole.position(key))
    assert set(keys[3]) < set(keys[6])
    assert not list(tmp_path.glob(".*"))


def test_more_studies_than_there_are_are_refused(config):
    with pytest.raises(UsageError, match="--sizes 9: there are 8 unlabelled studies"):
        read_sizes(config, [4, 9])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pretraining_sizes_from_end_to_end(balls, tmp_path, ball_shards, capsys):
    out = tmp_path / "study"
    unlabelled = ball_shards(range(40, 46))
    call = ["study", "pretraining_size", *balls.options, "--unlabelled", str(unlabelled)]
    call += ["--pretrain", *balls.pretrain, "--sizes", "4", "--seeds", "1", "--shots", "4"]
    call += ["--out", str(out)]
    assert main([*call, "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "1 pretrainings, 0 done" in planned
    assert "2 runs, each measured on A; 0 done" in planned
    assert not out.exists()
    assert main(call) == 0
    rows = json.loads((out / "study.json").read_text())["rows"]
    dice = {r["pretraining_studies"]: r for r in rows if r["measure"] == "Dice mean"}
    assert set(dice) == {0, 4}
    assert dice[4]["difference"] == pytest.approx(dice[4]["value"] - dice[0]["value"])
    assert np.isfinite(dice[4]["difference_low"])
    runs = [json.loads((out / f"runs/{n}_4_0/run.json").read_text()) for n in
            ("scratch", "4_studies")]  # fmt: skip
    assert [run["config"]["from"] for run in runs] == [
        "scratch", str(out / "pretraining/4_studies/checkpoint"),
    ]  # fmt: skip
    capsys.readouterr()
    assert main([*call, "--pretrain", *balls.pretrain, "optim.lr=0.5"]) == 2
    assert "holds another run, which differs in pretrain" in capsys.readouterr().err

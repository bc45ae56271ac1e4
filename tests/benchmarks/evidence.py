"""Does pretraining help? 5, 10 and 20 labelled phantoms, five draws, 100 test cases of A and of B.

    python tests/benchmarks/evidence.py FOLDER [--seeds N] [--parallel N] [--shots N …]
        [--arms NAME …] [--search]

Pretrained on 300 unlabelled phantoms of mixed protocols (preset `coarse`) and fine-tuned by the
preset `coarse` (800 steps), against training from scratch. An arm's trunk stays as it is, and the
convolutional path and the heads are trained, or all is trained:

pretrained      the trunk as pretrained, kept
pretrained_all  all trained from the checkpoint
random_trunk    a trunk of random weights, kept
scratch         all trained from random weights, the encoder at the rate of the rest
frozen          the whole encoder of random weights, kept: the heads alone are trained

`--search` is one draw of the first four. Otherwise `pretrained` is measured against
`random_trunk`, the best of them that has no checkpoint: only the weights of the trunk differ, and
the same is trained for as long. Both were chosen by what they gave on the test phantoms, so that a
gain here would have to be shown again on others. Intervals are over draws and cases. Goes on where
it stopped; hours of one core, which `--parallel` shares out. Writes evidence.json, .csv and .png in
tests/benchmarks/results, or evidence_search with `--search`, or evidence_100 with `--shots 100`.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import tomli_w
from commands import Cost

RESULTS = Path(__file__).parent / "results"
SPACING = ("--spacing", "3.5")
COHORTS = {
    "unlabelled": ("300", "--protocol", "mixed", "--seed", "1", "--unlabelled"),
    "labelled": ("120", "--protocol", "A", "--seed", "2"),
    "test_a": ("100", "--protocol", "A", "--seed", "4"),
    "test_b": ("100", "--protocol", "B", "--seed", "3"),
    "test_a_24": ("24", "--protocol", "A", "--seed", "4"),
}
"""Name → arguments of `gliomoe phantom`; the last are the first cases of A, for `studies.py`."""
NAMES = ("labelled", "test_a", "test_b")
SHOTS = [5, 10, 20]
KEPT_TRUNK = {"freeze": "partial", "train_blocks": 0}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrained": ("{checkpoint}", KEPT_TRUNK),
    "pretrained_all": ("{checkpoint}", {}),
    "random_trunk": ("scratch", KEPT_TRUNK),
    "scratch": ("scratch", {"optim": {"encoder_lr": 8e-3}}),
    "frozen": ("scratch:frozen", {}),
}
"""Name → where it starts, and what it changes of the preset."""
SEARCHED = ("pretrained", "pretrained_all", "random_trunk", "scratch")
COMPARED = ("pretrained", "random_trunk")


def shards(folder: Path, name: str, cost: Cost) -> Path:
    """The shard set of a cohort."""
    out = folder / "shards" / name
    if not (out / "dataset.json").is_file():
        cohort = folder / "cohorts" / name
        cost.gliomoe("phantom", cohort, "--subjects", *COHORTS[name], *SPACING)
        kept = () if name == "unlabelled" else ("--keep-ids",)
        cost.gliomoe("shards", "build", cohort, "--out", out, *SPACING, *kept)
    return out


def pretrained(folder: Path, cost: Cost) -> Path:
    """The checkpoint."""
    run, checkpoint = folder / "pretraining", folder / "checkpoint"
    if not (checkpoint / "config.json").is_file():
        unlabelled = shards(folder, "unlabelled", cost)
        cost.gliomoe("pretrain", "coarse", "--data.train", unlabelled, "--run.out", run)
        cost.gliomoe("export", run, "--out", checkpoint)
    return checkpoint


def keep(study: Path, result: Path, folder: Path) -> None:
    """Copy what a study wrote, as `result` with suffixes, without where `folder` is."""
    for name in ("study.json", "table.csv"):
        text = (study / name).read_text("utf-8").replace(f"{folder}/", "")
        result.with_suffix(Path(name).suffix).write_text(text, "utf-8")
    shutil.copy(study / "plot.png", result.with_suffix(".png"))


def main() -> None:
    """Run what is missing and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
    parser.add_argument("--seeds", type=int, default=5, help="draws of labelled cases")
    parser.add_argument("--shots", nargs="+", type=int, default=SHOTS, help="labelled cases")
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="the last is the baseline")
    parser.add_argument("--search", action="store_true", help="one draw, to choose arms by")
    args = parser.parse_args()
    arms = args.arms or (SEARCHED if args.search else COMPARED)
    result = "evidence_search" if args.search else "evidence"
    if args.shots != SHOTS:
        result = "_".join(map(str, (result, *args.shots)))
    folder, cost = args.folder.resolve(), Cost()
    checkpoint = pretrained(folder, cost)
    data, *tests = (shards(folder, name, cost) for name in NAMES)
    settings = folder / "arms.toml"
    settings.write_text(tomli_w.dumps({arm: ARMS[arm][1] for arm in arms}), "utf-8")
    sources = [f"{arm}={ARMS[arm][0].format(checkpoint=checkpoint)}" for arm in arms]
    tables = [folder / "cohorts" / name / "participants.tsv" for name in NAMES]
    cost.gliomoe(
        *("study", "shots", "--data", data, "--labels", tables[0]),
        *("--test", f"A={tests[0]}", f"B={tests[1]}"),
        *("--test-labels", f"A={tables[1]}", f"B={tables[2]}"),
        *("--arms", *sources, "--arm-settings", settings, "--baseline", arms[-1]),
        *("--finetune", "coarse", "--out", folder / result, "--shots", *args.shots),
        *("--seeds", 1 if args.search else args.seeds, "--parallel", args.parallel),
    )
    keep(folder / result, RESULTS / result, folder)


if __name__ == "__main__":
    main()

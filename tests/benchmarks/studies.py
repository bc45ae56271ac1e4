"""Tables of the studies that look at fine-tuned runs, on the cohorts and runs of `evidence.py`.

    python tests/benchmarks/studies.py FOLDER [NAME …]

FOLDER is that of `evidence.py --search`, which must be done. The run looked at is fine-tuned from
the pretrained checkpoint, whose trunk stays, on 20 cases (first fold of five); the run beside it is
the one from scratch on the same cases. Corruptions are measured on the first 24
test cases of A. For `smaller` the other four folds are trained, a student of half the width from
their ensemble, with unlabelled phantoms, and the experts of the first are halved. Studies that
train are of one draw of 20 cases and a quarter of the steps, those that pretrain of 100 steps of
it, and trunks stay as pretrained, so that it is their features that are compared: what runs and
what it costs shows, differences need more draws and steps. A study that is done is kept, one that
was interrupted continues. Writes tests/benchmarks/results/studies/NAME.json, .csv and .png.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from commands import Cost
from evidence import keep, shards

RESULTS = Path(__file__).parent / "results/studies"
STUDENT = ("width=96", "heads=3", "hidden=256", "experts=4", "expert_hidden=64")
"""Settings of the student."""
VARIANTS = (
    "dense", "top_1", "no_routing_loss", "fusion_mean", "fusion_content", "thin_detail",
    "no_contrast", "no_reconstruction", "latent_prediction", "mask_50", "show_all",
    "sequence_dropout", "markers_as_trained", "frozen", "low_rank",
)  # fmt: skip
"""Those that change something of the preset `coarse` with its trunk kept."""
KEPT_TRUNK = ("freeze=partial", "train_blocks=0")
SHORT = ("train.epochs=2", "train.validate_every=2")
UNPATCHED = ("attention_unet", "mgmt_net")
"""Systems without tokens whose size can be set; at the preset's rate one diverges."""


class Studies:
    """The commands of each study.

    Args:
        folder: Of `evidence.py`.
    """

    def __init__(self, folder: Path):
        self.folder, self.cost = folder, Cost()
        self.work = folder / "studies"
        self.searched = folder / "evidence_search"
        self.runs = [self.searched / "runs" / f"{arm}_20_0" for arm in ("pretrained", "scratch")]

    def cohort(self, name: str) -> tuple[Path, Path]:
        """Shard set and label table."""
        return (
            shards(self.folder, name, self.cost),
            self.folder / "cohorts" / name / "participants.tsv",
        )

    def evaluations(self) -> list[Path]:
        """Of both runs on A, then on B."""
        root = self.searched / "evaluations"
        return [root / cohort / run.name for cohort in "AB" for run in self.runs]

    def run(self, name: str, *arguments: object) -> None:
        """One study."""
        self.cost.gliomoe("study", name, *arguments, "--out", self.work / name)

    def from_evaluations(self, name: str) -> None:
        """A study that needs no model."""
        self.run(name, *self.evaluations())

    def of_the_run(self, name: str) -> None:
        """A study of the first run on A."""
        data, labels = self.cohort("test_a")
        self.run(name, self.runs[0], "--data", data, "--labels", labels)

    def shift(self) -> None:
        """Corruptions of some cases of A, and B."""
        cohorts = [self.cohort(name) for name in ("test_a_24", "test_b")]
        data, labels = zip(*cohorts, strict=True)
        self.run("shift", *self.runs, "--data", *data, "--labels", *labels)

    def smaller(self) -> None:
        """Ensemble, one fold, student, pruned."""
        data, labels = self.cohort("labelled")
        unlabelled, _ = self.cohort("unlabelled")
        splits = self.searched / "splits/20_0.json"
        common = ("--data", data, "--labels", labels, "--shots", "20", "--splits", splits)
        runs = self.work / "runs"
        checkpoint, ensemble, student = self.folder / "checkpoint", runs / "ensemble", runs / "half"
        kept = ("--from", checkpoint, "--freeze", "partial", "--train-blocks", "0")
        folds = ("--only-folds", "0", "1", "2", "3", "4")
        self.finetune(*common, *kept, *folds, "--out", ensemble)
        self.finetune(
            *(*common, "--teacher", ensemble, "--distil.data", unlabelled, "--only-folds", "0"),
            *("--arch.set", *STUDENT, "--out", student),
        )
        pruned = runs / "four_experts"
        self.cost.gliomoe("prune", self.runs[0], "--experts", "4", "--out", pruned)
        tests, _ = self.cohort("test_a")
        self.run("smaller", ensemble, ensemble / "fold_0", student, pruned, "--data", tests)

    def training(self, name: str, *arguments: object, settings: Sequence[str] = ()) -> None:
        """A study that trains, on 20 cases of a draw."""
        data, labels = self.cohort("labelled")
        tests, test_labels = self.cohort("test_a")
        self.run(
            *(name, "--data", data, "--labels", labels, "--shots", "20", "--seeds", "1"),
            *("--test", f"A={tests}", "--test-labels", f"A={test_labels}", *arguments),
            *("--finetune", "coarse", *SHORT, *settings),
        )

    def backbones(self) -> None:
        """Systems that a CPU trains in minutes, from scratch."""
        settings = self.work / "models.toml"
        settings.parent.mkdir(exist_ok=True)
        own: dict[str, Any] = {
            "arch": {"patch_size": "None"},
            "optim": {"lr": 1e-3, "encoder_lr": 1e-3},
            "train": {"precision": "fp32"},
        }
        settings.write_text(tomli_w.dumps(dict.fromkeys(UNPATCHED, own)), "utf-8")
        models = ("gliomoe_tiny", *UNPATCHED)
        self.training("backbones", "--models", *models, "--model-settings", settings)

    def pretraining(self, name: str, *arguments: object) -> None:
        """A study that pretrains too."""
        unlabelled, _ = self.cohort("unlabelled")
        steps = ("--pretrain", "coarse", "run.steps=100")
        where = ("--unlabelled", unlabelled)
        self.training(name, *where, *steps, *arguments, settings=KEPT_TRUNK)

    def finetune(self, *arguments: object) -> None:
        """A run of the preset of the evidence."""
        self.cost.gliomoe("finetune", "coarse", *arguments)

    def known(self) -> dict[str, Callable[[], None]]:
        """Name → what makes it, the quick ones first."""
        quick = ("satellites", "calibration", "uncertainty")
        return {
            **{name: lambda name=name: self.from_evaluations(name) for name in quick},
            **{name: lambda name=name: self.of_the_run(name) for name in ("experts", "subsets")},
            "shift": self.shift,
            "smaller": self.smaller,
            "backbones": self.backbones,
            "pretraining_size": lambda: self.pretraining(
                "pretraining_size", "--sizes", 30, 100, 300
            ),
            "ablations": lambda: self.pretraining("ablations", "--only", *VARIANTS),
        }


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="studies to make; none: all")
    args = parser.parse_args()
    studies = Studies(args.folder.resolve())
    known = studies.known()
    if unknown := set(args.names) - set(known):
        parser.error(f"no study {unknown.pop()}; there are {', '.join(known)}")
    RESULTS.mkdir(exist_ok=True)
    for name in args.names or known:
        if not (studies.work / name / "study.json").is_file():
            known[name]()
        keep(studies.work / name, RESULTS / name, studies.folder)


if __name__ == "__main__":
    main()

"""The labelled cohort as cases to train on and cohort A to test on, and presets of two steps."""

import json

import pytest

CHANGES = ['tasks=["seg", "idh"]', "only_folds=[0]"]
STEPS = ["run.steps=2", "optim.warmup=1", "monitor.pictures_every=0", "data.workers=0"]


class Balls:
    """Training shards, test shards, label tables, and presets with their changes."""

    def __init__(self, folder, build, write, preset, settings):
        self.folder = folder
        self.train, self.test = build(range(8)), build(range(20, 25))
        self.labels = write(folder / "labels.tsv", range(8))
        self.test_labels = write(folder / "test.tsv", range(20, 25))
        self.finetune = (str(preset), *CHANGES)
        sizes = json.dumps([f"{name}={value}" for name, value in settings.items()])
        self.pretrain = ("smoke", f"model.set={sizes}", *STEPS)

    @property
    def options(self):
        """Options that every study shares."""
        return [
            "--data", str(self.train), "--labels", str(self.labels), "--test", f"A={self.test}",
            "--test_labels", f"A={self.test_labels}", "--finetune", *self.finetune,
        ]  # fmt: skip


@pytest.fixture(scope="session")
def balls(tmp_path_factory, ball_shards, write_labels, tiny_preset, tiny_settings):
    folder = tmp_path_factory.mktemp("cohort")
    return Balls(folder, ball_shards, write_labels, tiny_preset, tiny_settings)

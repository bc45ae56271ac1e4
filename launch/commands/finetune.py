"""`gliomoe finetune`: adapt a checkpoint, or train from scratch, on a few labelled cases."""

import signal

from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.run import SUMMARY
from gliomoe.finetune.train import finetune, prepare
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import claim, release

PRESETS = "gliomoe.finetune"
EXAMPLE = (
    "gliomoe finetune gliomoe_20shot --data cases/ --labels labels.csv "
    "--from checkpoint/ --out runs/first"
)
FREE = ("only_folds", "cache", "train.device", "train.workers", "train.parallel")
"""Settings that may change when a run goes on."""

Options = FinetuneConfig


def run(options: FinetuneConfig) -> int:
    """Claim the folder, check everything, train the folds that are missing."""
    # Stop like Ctrl-C: every file is written whole or not at all, so any moment is good.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    continued = claim(options.out, "finetune", to_table(options), FREE, beside=("shards",))
    try:
        prepared = prepare(options)
    except BaseException:
        if not continued:
            release(options.out)
        raise
    summary = finetune(options, prepared)
    for region, value in summary["dice"].items():
        print(f"validation Dice {region}  {value:.3f}")
    print(f"{len(summary['folds'])} of {options.folds} folds: {options.out / SUMMARY}")
    return 0

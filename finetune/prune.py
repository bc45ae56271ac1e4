"""A smaller run out of a fine-tuned one: the least used experts of each mixture go.

Notable: choices are counted on the training cases of each fold, and markers are fitted anew on them
where the run did that. Its validation cases then judge the smaller model, so that thresholds and
temperatures are its own.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.finetune.config import FinetuneConfig
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.inference import predict_study
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.run import (
    SPLITS,
    SUMMARY,
    FinetunedRun,
    fold_folder,
    training_folder,
)
from gliomoe.finetune.splits import write_splits
from gliomoe.finetune.train import (
    Prepared,
    decision_rules,
    finished,
    refitted,
    simulated,
    summarise,
)
from gliomoe.finetune.validation import inference_config, validate
from gliomoe.models.card import model_card
from gliomoe.models.checkpoint import (
    FINGERPRINTS,
    load_checkpoint,
    read_config,
    save_checkpoint,
)
from gliomoe.models.model import Model
from gliomoe.models.moe.pruning import prune_experts
from gliomoe.models.moe.statistics import counted_choices, mixtures
from gliomoe.models.registry import parameter_counts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    parameters: int
    active: int
    """Parameters that act on one token."""
    bytes: int
    """Of the weights as they are stored."""

    @classmethod
    def of(cls, model: Model) -> "Size":
        """The size of a model."""
        stored = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        return cls(*parameter_counts(model), stored)


def sizes(run: FinetunedRun, experts: int) -> tuple[Size, Size]:
    """The size of a member of a run, before and after pruning.

    Raises:
        ModelError: If it has no mixtures, or they cannot keep so many experts.
    """
    model = load_checkpoint(run.folders[0])
    evenly = {n: torch.ones(len(part.router.weight)) for n, part in mixtures(model).items()}
    return Size.of(model), Size.of(prune_experts(model, evenly, experts))


def prune(
    run: FinetunedRun, config: FinetuneConfig, prepared: Prepared, experts: int
) -> dict[str, Any]:
    """Write the pruned folds that are not there yet, and sum up.

    Args:
        run: A fine-tuned run.
        config: Its configuration, with the folder of the new run as `out`.
        prepared: Its cases and splits.
        experts: What each mixture keeps.

    Returns:
        What is written to `summary.json`.
    """
    write_splits(config.out / SPLITS, prepared.splits)
    for source in run.folders:
        number = read_config(source)["training"]["fold"]
        if not finished(config.out, number):
            _prune_fold(source, config, prepared, number, experts)
    summary = summarise(config, prepared)
    write_json(config.out / SUMMARY, summary)
    return summary


def _prune_fold(
    source: Path, config: FinetuneConfig, prepared: Prepared, number: int, experts: int
) -> None:
    """Count, prune, judge, write one fold."""
    fold, described = prepared.splits.folds[number], read_config(source)
    model = load_checkpoint(source).to(pick_device(config.train.device))
    with counted_choices(model) as counts:
        for case in tqdm(prepared.chosen(fold.train), f"fold {number}", unit="case", disable=None):
            predict_study([model], read_case(prepared.shards, case), inference_config(config))
    smaller = prune_experts(model, counts, experts)
    refitted(smaller, config, prepared, number)
    cases = [read_case(prepared.shards, case) for case in prepared.chosen(fold.validation)]
    validated = validate(smaller, cases, config)
    write_json(training_folder(config.out, number) / "result.json", asdict(validated))
    before = described["training"]["validation"]["dice"]
    log.info("fold %d: validation Dice %s", number, _change(before, validated.dice))
    about: dict[str, Any] = {
        "training": {
            **described["training"],
            "pruned": {"from": str(source), "experts": experts},
            "validation": {"dice": validated.dice, "log_loss": validated.log_loss},
            **decision_rules(config, prepared, [validated]),
        },
        "preprocessing": described["preprocessing"],
        "sequences": described["sequences"],
    }
    smaller = smaller.cpu()
    save_checkpoint(
        fold_folder(config.out, number),
        smaller,
        card=model_card(
            f"{config.out.name}, fold {number}", smaller, phantom=simulated(prepared), **about
        ),
        fingerprints=(source / FINGERPRINTS).read_bytes(),
        **about,
    )


def _change(before: dict[str, float], after: dict[str, float]) -> str:
    """`ET 0.512 → 0.498, TC …`; nothing for a run that does not segment."""
    return ", ".join(f"{r} {before[r]:.3f} → {after[r]:.3f}" for r in after) or "–"

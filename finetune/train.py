"""A fine-tuning run: check everything first, then train fold after fold, then sum up."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliomoe.data_shards.building.build import BuildConfig, open_or_build
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.label_table import read_label_table
from gliomoe.data_shards.order import seed_for
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.finetune.calibration import marker_rules
from gliomoe.finetune.cases import (
    LabelledCase,
    labelled_cases,
    refuse_leakage,
    require_labels,
    task_counts,
    warn_of_segmentations,
    write_conflicts,
)
from gliomoe.finetune.config import SCRATCH, FinetuneConfig
from gliomoe.finetune.dataset import CropDataset, MixedCrops, fitting_crop, read_case
from gliomoe.finetune.freeze import freeze
from gliomoe.finetune.inputs import check_options, gene_tables, with_inputs
from gliomoe.finetune.loop import FoldData, train_fold
from gliomoe.finetune.lora import merge
from gliomoe.finetune.losses import prevalence_weights
from gliomoe.finetune.parallel import run_side_by_side
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.refit import refit_markers
from gliomoe.finetune.run import (
    FORMAT,
    SPLITS,
    SUMMARY,
    FinetunedRun,
    fold_folder,
    training_folder,
)
from gliomoe.finetune.specks import Extent, smallest_ml
from gliomoe.finetune.splits import Splits, check_folds, make_splits, read_splits, write_splits
from gliomoe.finetune.teacher import Teacher, appoint, check_teacher
from gliomoe.finetune.validation import Validated, inference_config, validate
from gliomoe.models.card import model_card
from gliomoe.models.checkpoint import (
    CONFIG,
    FINGERPRINTS,
    load_encoder,
    read_config,
    save_checkpoint,
)
from gliomoe.models.heads.markers import MarkerHead
from gliomoe.models.hub import fetch
from gliomoe.models.model import Model
from gliomoe.models.recompute import set_recompute
from gliomoe.models.registry import create_model
from gliomoe.models.settings import parse_settings

DEFAULT_MODEL = "gliomoe_tiny"

PHANTOM = "gliomoe phantom"
"""What simulated cohorts give as their generator; the model card must say so."""


@dataclass(frozen=True)
class Prepared:
    """A run that has been checked and can train."""

    shards: ShardSet
    cases: dict[str, LabelledCase]
    """Study key → case, of all cases with labels."""
    splits: Splits
    checkpoint: Path | None
    """Folder of the checkpoint; None from scratch."""
    architecture: dict[str, Any]
    """Name and overrides of the model."""
    preprocessing: dict[str, Any]
    teacher: Teacher | None

    def chosen(self, keys: Sequence[str]) -> list[LabelledCase]:
        """The cases of these keys."""
        return [self.cases[key] for key in keys]


def prepare(config: FinetuneConfig) -> Prepared:
    """Check the call, the checkpoint, the cases and their labels, before any training.

    Writes nothing but the shard set of a raw folder.

    Raises:
        UsageError: If the call, the table, the splits or the teacher do not fit the data or the
            checkpoint.
        DataError: If a case cannot be read.
        CheckpointError: If the checkpoint is damaged.
    """
    if config.labels is not None:
        read_label_table(config.labels)  # a bad table is refused before anything is fetched
    else:
        require_labels(config.data, config.markers)
    checkpoint = None if config.from_ == SCRATCH else fetch(config.from_)
    architecture, preprocessing = _architecture(config, checkpoint)
    model = create_model(architecture["name"], config.tasks, **architecture["overrides"])
    if checkpoint is not None:
        load_encoder(model, checkpoint)  # what does not fit is refused before anything is written
    freeze(model, config.freeze, config.train_blocks, config.lora)
    check_options(model, config)
    teaching = None if config.teacher is None else FinetunedRun.open(config.teacher)
    if teaching is not None:
        check_teacher(teaching, model, config, preprocessing)
    gene_tables(model, config.genes)  # bad tables are refused before cases are preprocessed
    shards = open_or_build(
        config.data,
        config.cache or config.out / "shards",
        BuildConfig(keep_ids=True, preprocess=PreprocessConfig.from_json(preprocessing)),
    )
    cases = labelled_cases(shards, config.labels, config.tasks)
    cases = with_inputs(model, shards, cases, config.genes)
    if checkpoint is not None and not config.allow_leakage:
        refuse_leakage(cases, Seen.read(checkpoint / FINGERPRINTS), config.from_)
    written = config.out / SPLITS
    if source := written if written.is_file() else config.splits:
        splits = read_splits(source, cases)
        if len(splits.folds) != config.folds:
            raise UsageError(f"{source}: has {len(splits.folds)} folds, not {config.folds}")
    else:
        splits = make_splits(cases, config.shots, config.folds, config.seed)
    by_key = {case.key: case for case in cases}
    check_folds(splits, by_key, config.tasks)
    if "seg" in config.tasks:
        warn_of_segmentations(shards, [by_key[key] for key in splits.keys])
    teacher = None if teaching is None else appoint(teaching, model, config, shards, by_key, splits)
    return Prepared(shards, by_key, splits, checkpoint, architecture, preprocessing, teacher)


def finetune(config: FinetuneConfig, prepared: Prepared) -> dict[str, Any]:
    """Train the folds that are not done yet.

    Args:
        config: The run's configuration; its folder is taken for this run already.
        prepared: What `prepare` found.

    Returns:
        What is written to `summary.json`.
    """
    write_splits(config.out / SPLITS, prepared.splits)
    write_conflicts(config.out, prepared.shards, config.labels, config.tasks)
    missing = [number for number in config.run_folds if not finished(config.out, number)]
    if config.train.parallel > 1 and len(missing) > 1:
        run_side_by_side(run_fold, config, prepared, missing)
    else:
        for number in missing:
            run_fold(config, prepared, number)
    summary = summarise(config, prepared)
    write_json(config.out / SUMMARY, summary)
    return summary


def run_fold(config: FinetuneConfig, prepared: Prepared, number: int, row: int = 0) -> None:
    """Train one fold and write its checkpoint folder; `row` is that of its bar in a terminal."""
    folder, fold = training_folder(config.out, number), prepared.splits.folds[number]
    device = pick_device(config.train.device)
    model = build_model(config, prepared, number).to(device)
    data = _fold_data(config, prepared, number, device)
    validated = train_fold(model, data, config, folder, row)
    merge(model)
    if refitted(model, config, prepared, number):
        validated = validate(model, data.validation, config)
    write_json(folder / "result.json", asdict(validated))
    training = {
        "kind": "finetune",
        "from": config.from_,
        "freeze": config.freeze,
        "tasks": list(config.tasks),
        "window": list(inference_config(config).window),
        "fold": number,
        "cases": len(fold.train),
        "teacher": prepared.teacher.described(number) if prepared.teacher else None,
        "validation": {"dice": validated.dice, "log_loss": validated.log_loss},
        **decision_rules(config, prepared, [validated]),
    }
    about: dict[str, Any] = {
        "training": training,
        "preprocessing": prepared.preprocessing,
        "sequences": _sequences(prepared, number),
    }
    model = model.cpu()
    save_checkpoint(
        fold_folder(config.out, number),
        model,
        card=model_card(
            f"{config.out.name}, fold {number}",
            model,
            phantom=simulated(prepared),
            **about,
        ),
        fingerprints=_seen(prepared),
        **about,
    )
    for state in ("state.pt", "best.pt"):
        (folder / state).unlink()


def refitted(model: Model, config: FinetuneConfig, prepared: Prepared, number: int) -> bool:
    """Fit the markers anew on the training cases of a fold; whether the run does that."""
    heads = dict(model.heads.items())  # those of published systems have other names
    if not (config.refit and config.markers and isinstance(heads.get("markers"), MarkerHead)):
        return False
    chosen = prepared.chosen(prepared.splits.folds[number].train)
    cases = [read_case(prepared.shards, case) for case in chosen]
    refit_markers(model, cases, config.refit, inference_config(config))
    return True


def build_model(config: FinetuneConfig, prepared: Prepared, number: int) -> Model:
    """The model of a fold: fresh heads, the checkpoint's encoder where there is one."""
    torch.manual_seed(seed_for(config.seed, "weights", number))
    architecture = prepared.architecture
    model = create_model(architecture["name"], config.tasks, **architecture["overrides"])
    if prepared.checkpoint is not None:
        load_encoder(model, prepared.checkpoint)
    freeze(model, config.freeze, config.train_blocks, config.lora)
    set_recompute(model, config.train.recompute)
    return model


def summarise(config: FinetuneConfig, prepared: Prepared) -> dict[str, Any]:
    """Validation of the finished folds; thresholds and temperatures from held-out cases."""
    results = {}
    for number in range(config.folds):
        if finished(config.out, number):
            content = (training_folder(config.out, number) / "result.json").read_text("utf-8")
            results[number] = Validated(**json.loads(content))
    folds = [
        {"fold": n, "score": r.score, "dice": r.dice, "log_loss": r.log_loss}
        for n, r in results.items()
    ]
    regions = next(iter(results.values())).dice
    return {
        "format": FORMAT,
        "model": prepared.architecture["name"],
        "from": config.from_,
        "freeze": config.freeze,
        "tasks": list(config.tasks),
        "cases": len(prepared.splits.keys),
        "labels": {
            task: {f"{value:g}": count for value, count in counts.items()}
            for task, counts in task_counts(
                prepared.chosen(prepared.splits.keys), config.tasks
            ).items()
        },
        "folds": folds,
        "folds_planned": config.folds,
        "dice": {r: float(np.mean([f.dice[r] for f in results.values()])) for r in regions},
        **decision_rules(config, prepared, list(results.values())),
    }


def decision_rules(
    config: FinetuneConfig, prepared: Prepared, results: Sequence[Validated]
) -> dict[str, Any]:
    """How probabilities become decisions, chosen on cases that their fold did not train on.

    Returns:
        What `marker_rules` returns, and `smallest_ml`, region → volume up to which it is noise.
    """
    held_out = [
        (prepared.cases[key].targets, probabilities)
        for result in results
        for key, probabilities in result.markers.items()
    ]
    extents = [
        {region: Extent(**fields) for region, fields in case.items()}
        for result in results
        for case in result.extents.values()
    ]
    return {
        **marker_rules(held_out, config.markers),
        "smallest_ml": smallest_ml(extents, config.specks),
    }


def finished(run: Path, number: int) -> bool:
    """Whether a fold has its checkpoint folder, which appears whole and last."""
    return (fold_folder(run, number) / CONFIG).is_file()


def _architecture(
    config: FinetuneConfig, checkpoint: Path | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Name and overrides of the model, and the preprocessing of its input.

    Other settings than a checkpoint's may change its heads; an encoder that they change does not
    fit its weights and is refused when those are loaded.
    """
    wanted, spacing = parse_settings(config.arch.set), config.arch.spacing
    patch = {} if config.arch.patch_size is None else {"patch_size": config.arch.patch_size}
    if checkpoint is None:
        preprocess = PreprocessConfig(spacing=1.0 if spacing is None else spacing)
        overrides = {**wanted, **patch}
        return {"name": config.model or DEFAULT_MODEL, "overrides": overrides}, preprocess.to_json()
    described = read_config(checkpoint)
    if described["training"].get("kind") == "finetune":
        raise UsageError(
            f"{config.from_}: is fine-tuned already, for {', '.join(described['model']['tasks'])}; "
            "give --from a pretrained checkpoint"
        )
    name, overrides = described["model"]["name"], described["model"]["overrides"]
    own = {"model": name, "arch.spacing": described["preprocessing"]["spacing"]}
    own |= {f"arch.{key}": overrides[key] for key in patch}
    asked = {"model": config.model, "arch.spacing": spacing}
    asked |= {f"arch.{key}": value for key, value in patch.items()}
    for key, value in asked.items():
        if value is not None and value != own[key]:
            raise UsageError(
                f"--{key} {value} contradicts {config.from_}, which has {own[key]}; "
                f"give --{key} {own[key]}"
            )
    return {"name": name, "overrides": {**overrides, **wanted}}, described["preprocessing"]


def _fold_data(
    config: FinetuneConfig, prepared: Prepared, number: int, device: torch.device
) -> FoldData:
    """Crops, validation cases, class weights and the teacher of a fold."""
    fold, teacher = prepared.splits.folds[number], prepared.teacher
    train = prepared.chosen(fold.train)
    counts = task_counts(train, config.markers)
    seed = seed_for(config.seed, "crops", number)
    shapes = [prepared.shards.entry(case.position).shape for case in train]
    unlabelled = None if teacher is None else teacher.shards
    if teacher is not None and unlabelled is not None:
        shapes += [unlabelled.entry(study.position).shape for study in teacher.studies]
    crop = fitting_crop(config.crop, shapes)
    crops: CropDataset | MixedCrops
    crops = labelled = CropDataset(prepared.shards, train, crop, config.artefacts, seed)
    if teacher is not None and unlabelled is not None:
        own = seed_for(config.seed, "unlabelled", number)
        others = CropDataset(unlabelled, teacher.studies, crop, config.artefacts, own)
        crops = MixedCrops(labelled, others, config.distil.share, seed)
    return FoldData(
        number=number,
        train=crops,
        validation=[read_case(prepared.shards, c) for c in prepared.chosen(fold.validation)],
        class_weights={task: prevalence_weights(found, task) for task, found in counts.items()},
        teacher=() if teacher is None else teacher.models(number, device),
    )


def simulated(prepared: Prepared) -> bool:
    """Whether phantoms take part."""
    sets = [prepared.shards]
    if prepared.teacher is not None and prepared.teacher.shards is not None:
        sets.append(prepared.teacher.shards)
    return any(PHANTOM in shards.info.get("generated_by", ()) for shards in sets)


def _seen(prepared: Prepared) -> bytes:
    """All that the weights and their choice rest on, as a checkpoint lists it."""
    labelled = [case.looks for case in prepared.chosen(prepared.splits.keys)]
    before = [Seen.read(prepared.checkpoint / FINGERPRINTS)] if prepared.checkpoint else []
    taught = [prepared.teacher.seen()] if prepared.teacher else []
    return Seen.join([*labelled, *before, *taught]).to_bytes()


def _sequences(prepared: Prepared, number: int) -> list[str]:
    """Sequences that any training of the weights saw, in canonical order."""
    seen = set(read_config(prepared.checkpoint)["sequences"]) if prepared.checkpoint else set()
    for case in prepared.chosen(prepared.splits.folds[number].train):
        seen.update(prepared.shards.entry(case.position).sequences)
    seen.update(prepared.teacher.sequences() if prepared.teacher else ())
    return sorted(seen, key=SEQUENCES.index)

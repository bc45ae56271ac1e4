"""The model card of a checkpoint, written from its configuration."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gliomoe.models.model import Model
from gliomoe.models.registry import parameter_counts

_PHANTOM = (
    "Some or all of the training data are simulated phantoms. Figures on phantoms say that the "
    "software works; they are no clinical evidence."
)


def model_card(
    title: str,
    model: Model,
    *,
    training: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    sequences: Sequence[str],
    phantom: bool = False,
) -> str:
    """Text of a README.md with YAML front matter.

    Args:
        title: Name of the checkpoint.
        model: For its name, tasks and size.
        training: Summary of the training.
        preprocessing: Settings that input must be prepared with.
        sequences: Canonical sequences that training saw.
        phantom: Whether simulated data took part, which the card must say.
    """
    total, active = parameter_counts(model)
    purpose = "image-segmentation" if "seg" in model.tasks else "image-feature-extraction"
    front = {
        "license": "apache-2.0",
        "library_name": "gliomoe",
        "pipeline_tag": purpose,
        "tags": ["brain-mri", "glioma", "mixture-of-experts", model.config["name"]],
    }
    tasks = ", ".join(model.tasks) or "none, an encoder to fine-tune"
    lines = [
        "---",
        *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
        "---",
        f"# {title}",
        "",
        f"`{model.config['name']}` of GlioMoE: {total:,} parameters, {active:,} active per token.",
        "",
        f"- Tasks: {tasks}",
        f"- Sequences seen in training: {', '.join(sequences)}; any subset, in any order",
        *([f"- {_PHANTOM}"] if phantom else []),
        "",
        "## Use",
        "    from gliomoe.models import load_pretrained",
        '    model = load_pretrained("PATH_OR_URL", tasks=["seg", "idh"])',
        "",
        "or `gliomoe finetune --data DIR --labels TABLE --from PATH_OR_URL --out RUN`.",
        "",
        "## Training",
        *_items(training),
        "",
        "## Input",
        *_items(preprocessing),
        "",
        "## Limits",
        "For research only: not a medical device, and not for decisions about patients.",
        "`pretraining_fingerprints.bin` names the studies of pretraining by content, so that they",
        "can be kept out of evaluation.",
    ]
    return "\n".join(lines) + "\n"


def _items(settings: Mapping[str, Any]) -> list[str]:
    """One line per setting."""
    return [f"- {key}: {json.dumps(value)}" for key, value in settings.items()] or ["- not stated"]

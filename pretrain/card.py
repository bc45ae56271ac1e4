"""The model card of a pretrained encoder, drafted from what the run knows of itself."""

from collections.abc import Mapping
from typing import Any

_TEMPLATE = """---
license: apache-2.0
library_name: gliomoe
pipeline_tag: image-feature-extraction
tags: [mri, brain, glioma, self-supervised, mixture-of-experts]
---

# {name}, pretrained

An encoder of brain MRI, pretrained without labels. It takes any mix of sequences; it was trained
with {sequences}.

## Use

    gliomoe finetune --from PATH_OF_THIS_FOLDER --data CASES --labels TABLE --out RUN

## Training

| | |
|---|---|
| objective | {objective} |
| optimizer steps | {steps} |
| studies read | {seen} ({studies} different) |
| precision | {precision} |
| weights | {weights} |
| losses of the last steps | {losses} |
| grid of the studies | {spacing} |

## Limits

Research software, no medical device. The encoder alone makes no statement about a patient; what is
built on it needs its own evaluation on cases that were not part of pretraining. The file
`pretraining_fingerprints.bin` lists the fingerprints of the studies seen, so that the evaluation
can refuse them. A model pretrained on simulated studies is a test of the software, never clinical
evidence.
"""


def write_card(name: str, training: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        name: Name of the model.
        training: Training summary of the checkpoint.
        data: `sequences` (name → studies) and `preprocess` settings of the shards.
    """
    losses = ", ".join(f"{part} {value:.4g}" for part, value in training["losses"].items())
    spacing = data["preprocess"].get("spacing")
    return _TEMPLATE.format(
        name=name,
        sequences=", ".join(data["sequences"]),
        objective=training["objective"],
        steps=training["steps"],
        seen=training["studies_read"],
        studies=training["studies"],
        precision=training["precision"],
        weights=training["weights"],
        losses=losses or "not recorded",
        spacing=f"{spacing} mm" if spacing else "their own",
    )

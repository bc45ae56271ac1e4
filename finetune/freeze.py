"""What keeps its weights: nothing, the encoder, its first blocks, or all of it but adapters."""

from typing import Literal

from torch import nn

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.depth import block_names, parameter_depths
from gliomoe.finetune.lora import LoraConfig, add_adapters
from gliomoe.models.model import Model

Freeze = Literal["none", "encoder", "partial", "lora"]


def freeze(model: Model, how: Freeze, last: int, lora: LoraConfig) -> None:
    """Freeze parts of a model's encoder; depths are those of `gliomoe.finetune.depth`.

    Args:
        model: Frozen parameters no longer require gradients.
        how: `encoder` freezes all of it. `partial` leaves the last blocks to train, and `lora`
            none, but puts adapters on the linear layers of all blocks; in both, parts that
            pretraining never trains go on training.
        last: Blocks that train with `partial`.
        lora: Adapters of `lora`.

    Raises:
        UsageError: If the encoder has fewer blocks, or no linear layers.
    """
    if how == "none":
        return
    encoder, name = model.encoder, model.config["name"]
    blocks = block_names(encoder)
    if how == "partial" and last > len(blocks):
        raise UsageError(
            f"--train_blocks {last}: the encoder of {name} has {len(blocks)} blocks; "
            "give fewer, or --freeze none"
        )
    trained = {"encoder": len(blocks) + 2, "partial": len(blocks) + 1 - last}
    first = trained.get(how, len(blocks) + 1)
    depths = parameter_depths(encoder)
    for parameter_name, parameter in encoder.named_parameters():
        parameter.requires_grad_(depths[parameter_name] >= first)
    if how == "lora":
        parts = [encoder.get_submodule(block) for row in blocks for block in row]
        if not add_adapters(parts, lora):
            raise UsageError(
                f"--freeze lora: the blocks of {name} have no linear layers to adapt; "
                "take --freeze partial"
            )


def train_mode(model: nn.Module) -> None:
    """Training mode, but evaluation mode for parts of which no parameter trains.

    Frozen batch normalisation keeps its statistics, and frozen parts draw no dropout.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()

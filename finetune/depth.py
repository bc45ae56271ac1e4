"""How deep in the encoder a parameter lies, by which parts are frozen and rates decay.

Depth 0 is what comes before the first block (`Encoder.stem_names`), depths 1 to L are the blocks
(`Encoder.trunk_names`), and what stands behind them, such as the last norm, is as deep as the last
block. Children that pretraining never trains (`Encoder.dense_only`) are as new as the heads: L + 1.
"""

from itertools import zip_longest

from gliomoe.models.encoders.encoder import Encoder


def block_names(encoder: Encoder) -> list[list[str]]:
    """Names of the encoder's blocks: for each depth from 1 to L those that run side by side."""
    rows: list[list[str]] = []
    for together in encoder.trunk_names:
        columns = [
            [f"{name}.{child}" for child, _ in encoder.get_submodule(name).named_children()]
            for name in together
        ]
        rows += [[block for block in row if block] for row in zip_longest(*columns)]
    return rows


def parameter_depths(encoder: Encoder) -> dict[str, int]:
    """Name of a parameter → depth, 0 to L + 1."""
    blocks = block_names(encoder)
    depths = {block: depth for depth, row in enumerate(blocks, start=1) for block in row}
    depths |= dict.fromkeys(encoder.stem_names, 0)
    depths |= dict.fromkeys(encoder.dense_only, len(blocks) + 1)
    return {
        name: next(
            (depth for part, depth in depths.items() if f"{name}.".startswith(f"{part}.")),
            len(blocks),
        )
        for name, _ in encoder.named_parameters()
    }

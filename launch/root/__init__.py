"""GlioMoE: pretrain one brain-MRI encoder on any mix of sequences, adapt it to glioma.

The parts are `gliomoe.data_shards`, `gliomoe.models`, `gliomoe.pretrain`, `gliomoe.finetune` and
`gliomoe.launch`; importing this package imports none of them.
"""

from importlib.metadata import version

__version__ = version("gliomoe")

"""The chain from files on grids of their own to one study on a common grid."""

from gliomoe.data_shards.preprocess.config import PreprocessConfig
from gliomoe.data_shards.preprocess.pipeline import STEPS, preprocess

__all__ = ["STEPS", "PreprocessConfig", "preprocess"]

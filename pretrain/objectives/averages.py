"""Means over the studies of all processes, with the gradient of each process's share.

DeepSpeed averages gradients over the processes. A process therefore divides its sum by the mean of
the counts over the processes: the mean of these quotients is the mean over everything that counts,
however unevenly it is shared out.

Shapes: P values of all studies.
"""

from torch import Tensor

from gliomoe.pretrain.engine import distributed

_LEAST = 1e-6


def global_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of the values that count.

    Args:
        values: [P] float32.
        counts: [P] float32, 1 for what counts, 0 for what does not.

    Returns:
        Scalar; its mean over the processes is the mean over all their values, 0 without any.
    """
    return (values * counts).sum() / distributed.mean(counts.sum()).clamp(min=_LEAST)


def mean_over_studies(values: Tensor, counts: Tensor, study: Tensor, studies: int) -> Tensor:
    """Mean within each study, then over the studies that have anything that counts.

    Args:
        values: [P] float32.
        counts: [P] float32, 1 for what counts, 0 for what does not.
        study: [P] int64.
        studies: Number of studies of this process.

    Returns:
        Scalar, as of `global_mean`.
    """
    total = values.new_zeros(studies).index_add(0, study, values * counts)
    number = values.new_zeros(studies).index_add(0, study, counts)
    return global_mean(total / number.clamp(min=1), number.gt(0).float())

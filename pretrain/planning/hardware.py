"""What GPUs and networks can do at most, from their makers' data sheets.

Sources: NVIDIA's data sheets of the H100, H200, B200, GH200, A100, A40, A10, L40S and L4 Tensor
Core GPUs (dense bf16, memory, NVLink or PCIe), Amazon's figures for the A10G; ConnectX-7 NDR
InfiniBand, 400 Gb/s a port, one a GPU as in a DGX H100.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU's limits."""

    peak_tflops: float
    """Dense bf16 TFLOP/s."""
    memory_gb: float
    """10⁹ bytes, of the smallest variant."""
    link_gb_s: float
    """10⁹ bytes a second to its neighbours in a node, both directions together."""


GPUS = {
    "H200": Gpu(989.0, 141, 900),
    "H100 PCIe": Gpu(756.0, 80, 128),
    "H100 NVL": Gpu(835.0, 94, 600),
    "H100": Gpu(989.0, 80, 900),
    "H800": Gpu(989.0, 80, 400),
    "GH200": Gpu(989.0, 96, 900),
    "B200": Gpu(2250.0, 180, 1800),
    "A100": Gpu(312.0, 40, 600),
    "A800": Gpu(312.0, 40, 400),
    "L40S": Gpu(362.0, 48, 64),
    "A40": Gpu(150.0, 48, 64),
    "A10G": Gpu(70.0, 24, 64),
    "A10": Gpu(125.0, 24, 64),
    "L4": Gpu(121.0, 24, 64),
}
"""Part of a GPU's name → its limits; the first whose words are all in the name counts."""


@dataclass(frozen=True)
class Cluster:
    """What connects the GPUs, and where checkpoints go."""

    gpus_per_node: int = 8
    """GPUs in a node."""
    network_gbit: float = 400.0
    """10⁹ bits a second between nodes for each GPU, one direction."""
    disk_gb_s: float = 1.0
    """10⁹ bytes a second that the shared folder takes in; an assumption, no data sheet."""

    def __post_init__(self) -> None:
        """Refuse clusters of nothing."""
        if min(self.gpus_per_node, self.network_gbit, self.disk_gb_s) <= 0:
            raise ValueError("gpus_per_node, network_gbit and disk_gb_s must be positive")


def find_gpu(name: str) -> Gpu | None:
    """A GPU by the name that it gives itself, None if it is not in the table."""
    words = name.replace("-", " ").split()
    for part, gpu in GPUS.items():
        if all(word in words for word in part.split()):
            return gpu
    return None

"""What one rank has, by kind of hardware: peaks from data sheets, and the shares of them that are assumed.

Peaks are the makers' dense figures. Shares are stated with their source: one of the H200's was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import suggest

GB = 1e9


@dataclass(frozen=True)
class Hardware:
    """One rank's device and links. Rates in FLOP/s and bytes/s."""

    name: str
    matmul: float  # peak of matrix products in the weights' dtype
    memory: float  # bytes
    reserved: float  # of them, what the driver, communication libraries and fragmentation take
    memory_bandwidth: float
    link: float  # to a rank of the same node, one direction
    network: float  # to a rank of another node, one direction
    node_ranks: int  # ranks that share a node
    operator_seconds: float  # least time between two operators of eager decoding
    dtype_bytes: int  # of a weight where the recipe leaves it open
    matmul_share: float  # of the peak, by training's matrix products and what stands between them
    bandwidth_share: float  # of memory, link and network
    source: str


_SHARES = (
    "0.4 of the matmul peak (0.38 measured on one H200: next-token steps of 0.36 B parameters, bfloat16; 0.38-0.43: "
    "Llama 3, 2407.21783); 0.75 of bandwidths and 6 us an operator of decoding assumed"
)

HARDWARE = {
    one.name: one
    for one in (
        Hardware(
            *("h200", 989e12, 141 * GB, 5 * GB, 4.8e12, 450 * GB, 50 * GB, 8, 6e-6, 2, 0.4, 0.75),
            f"H200 data sheet (NVLink 4, one 400 Gb/s port a GPU). {_SHARES}",
        ),
        Hardware(
            *("h100", 989e12, 85 * GB, 5 * GB, 3.35e12, 450 * GB, 50 * GB, 8, 6e-6, 2, 0.4, 0.75),
            f"H100 SXM data sheet (80 GiB, NVLink 4, one 400 Gb/s port a GPU). {_SHARES}",
        ),
        Hardware(
            *("a100", 312e12, 85 * GB, 5 * GB, 2.04e12, 300 * GB, 25 * GB, 8, 6e-6, 2, 0.4, 0.75),
            f"A100 SXM data sheet (80 GiB, NVLink 3, one 200 Gb/s port a GPU). {_SHARES}",
        ),
        Hardware(
            *("cpu", 83e9, 12 * GB, 0.5 * GB, 10 * GB, 2 * GB, 1 * GB, 2, 6e-6, 4, 0.6, 0.75),
            "one core of an EPYC (Zen 4): float32 products 166 GFLOP/s on two cores, training steps 97-134 GFLOP/s on "
            "both, measured; memory and links assumed",
        ),
    )
}


def find_hardware(name: str) -> Hardware:
    """By name. Raises ConfigError that lists the known ones."""
    if name not in HARDWARE:
        raise ConfigError(f"--hardware={name}: known are {', '.join(HARDWARE)}{suggest(name, list(HARDWARE))}")
    return HARDWARE[name]

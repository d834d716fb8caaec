"""How much arithmetic a device could do."""

from __future__ import annotations

import torch

# Dense bfloat16 FLOPs a second, from the vendors' data sheets; the first name that a device's holds counts.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "MI300X": 1307e12,
}


def peak_flops(device: torch.device) -> float | None:
    """A device's peak in FLOPs a second; None for those that the table doesn't have, CPUs among them."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)

"""What the figures were measured on."""

import platform
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import PIL
import torch

from segadapt.version import __version__
from suite.measure import cores

PEAK_TFLOPS: dict[str, dict[str, float]] = {
    "H200": {"fp32": 494.0, "bf16": 989.0},
    "H100 PCIe": {"fp32": 378.0, "bf16": 756.0},
    "H100": {"fp32": 494.0, "bf16": 989.0},
    "A100": {"fp32": 156.0, "bf16": 312.0},
    "A10": {"fp32": 62.5, "bf16": 125.0},
    "L40S": {"fp32": 183.0, "bf16": 362.0},
    "L4": {"fp32": 60.0, "bf16": 121.0},
    "RTX 4090": {"fp32": 82.6, "bf16": 165.2},
    "RTX 3090": {"fp32": 35.6, "bf16": 71.0},
}
"""Part of a GPU's name -> dense peak of its tensor cores by its data sheet, 10^12 operations per second.

fp32 is TF32's, which PyTorch allows convolutions by default.
"""


def peak_flops(device: torch.device, precision: str, told: float | None) -> float | None:
    """Peak operations per second of the device: as `told` in 10^12, else from the table, else None."""
    if told is not None:
        return 1e12 * told
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next(
        (1e12 * peaks[precision] for part, peaks in PEAK_TFLOPS.items() if re.search(rf"\b{part}\b", name)), None
    )


def describe(device: torch.device) -> dict[str, Any]:
    """Machine, versions and date, as JSON has them."""
    about: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "segadapt": __version__,
        "torch": str(torch.__version__),
        "pillow": PIL.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        about |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        }
    return about


def cpu_model() -> str:
    """As the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

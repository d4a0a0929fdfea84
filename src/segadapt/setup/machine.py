"""What a bug report needs to know about a machine: versions, devices, memory, disk, optional packages."""

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from segadapt.data.cache import default_prepared_root
from segadapt.inference.memory import free_bytes
from segadapt.plugin_loading import loaded
from segadapt.processes import usable_cores
from segadapt.setup.redaction import environment
from segadapt.version import __version__
from segadapt.weights.starts import weights_folder

GB = 1e9
LEAST_DISK, LITTLE_DISK = 0.1, 5.0
"""Gigabytes below which nothing can be written, and below which a run with checkpoints is at risk."""
LITTLE_MEMORY = 2.0
"""Gigabytes."""
LITTLE_SHARED = 0.06
"""Gigabytes of /dev/shm, through which loader processes send images: Docker's default is too small."""
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
    *("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME", "HF_TOKEN", "PYTORCH_CUDA_ALLOC_CONF", "PYTHONPATH"),
    *("RANK", "WORLD_SIZE", "LOCAL_RANK"),
)


@dataclass(frozen=True)
class Problem:
    """Something that fails (`error`), or is likely to (`warning`)."""

    level: Literal["error", "warning"]
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.level}: {self.where}: {self.what.rstrip('.')}. {self.remedy}"


def versions() -> dict[str, Any]:
    """segadapt itself, the interpreter, the system, and the required packages: name -> version."""
    return {
        "segadapt": __version__,
        "installed in": str(Path(__file__).parents[1]),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(),
        "packages": {"torch": str(torch.__version__)}
        | {name: _version(name) for name, _, extra in requirements() if extra is None and name != "torch"},
        "plugins": [plugin.as_dict() for plugin in loaded()],
    }


def requirements() -> Iterator[tuple[str, str | None, str | None]]:
    """(package, minimum version or None, extra or None) of all requirements in segadapt's metadata."""
    try:
        wanted = importlib.metadata.requires("segadapt") or []
    except importlib.metadata.PackageNotFoundError:  # run from source
        return
    for text in wanted:
        name = re.match(r"[\w.-]+", text)
        least = re.search(r"[>=]=\s*([\w.]+)", text.partition(";")[0])
        extra = re.search(r"""extra\s*==\s*["']([\w-]+)["']""", text)
        if name is not None:
            yield name[0], None if least is None else least[1], None if extra is None else extra[1]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_problems() -> list[Problem]:
    """Required packages that are missing or too old."""
    found = []
    for name, least, extra in requirements():
        version = _version(name)
        if extra is None and version is None:
            found.append(Problem("error", name, "is not installed", "Install segadapt again with pip."))
        elif version is not None and least is not None and _numbers(version) < _numbers(least):
            level: Literal["error", "warning"] = "error" if extra is None else "warning"
            what = f"is version {version}, but {least} is needed" + (f" for segadapt[{extra}]" if extra else "")
            found.append(Problem(level, name, what, f"pip install -U {name}"))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def extras() -> dict[str, dict[str, str | None]]:
    """Extra -> its packages, with the version of each that is installed and None for the others."""
    found: dict[str, dict[str, str | None]] = {}
    for name, _, extra in requirements():
        if extra is not None and extra != "dev":
            found.setdefault(extra, {})[name] = _version(name)
    return found


def cpu() -> dict[str, Any]:
    """The processor's name, if known."""
    model = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        named = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
        model = next(named, model)
    except OSError:
        pass
    return {
        "model": model,
        "cores": os.cpu_count(),
        "usable cores": usable_cores(),
        "instructions": str(torch.backends.cpu.get_cpu_capability()),
        "threads": torch.get_num_threads(),
    }


def gpus() -> list[dict[str, Any]]:
    """The CUDA devices that PyTorch sees."""
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(
            {
                "device": f"cuda:{number}",
                "name": facts.name,
                "memory (GB)": round(total / GB, 1),
                "free (GB)": round(free / GB, 1),
                "compute capability": f"{facts.major}.{facts.minor}",
            }
        )
    return found


def cuda() -> dict[str, Any]:
    """What PyTorch was built for, and whether it finds a GPU."""
    return {"built for": torch.version.cuda, "available": torch.cuda.is_available()}


def gpu_problems() -> list[Problem]:
    """A GPU that the driver reports but PyTorch cannot use."""
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available() or not driver or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    why = "this PyTorch is a CPU build" if torch.version.cuda is None else "PyTorch finds no device"
    remedy = "Install a CUDA build of PyTorch that the driver supports (see pytorch.org); until then CPUs are used."
    return [Problem("warning", "GPU", f"there is an NVIDIA driver, but {why}", remedy)]


def memory() -> dict[str, float | None]:
    """Gigabytes of memory: total, free for this process, and shared memory for loader processes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    free = free_bytes(torch.device("cpu"))
    shared = Path("/dev/shm")
    return {
        "total (GB)": None if total is None else round(total / GB, 1),
        "free (GB)": None if free is None else round(free / GB, 1),
        "/dev/shm free (GB)": round(shutil.disk_usage(shared).free / GB, 2) if shared.is_dir() else None,
    }


def memory_problems(found: dict[str, float | None]) -> list[Problem]:
    """Problems with too little memory."""
    problems = []
    free, shared = found["free (GB)"], found["/dev/shm free (GB)"]
    if free is not None and free < LITTLE_MEMORY:
        remedy = "Use a smaller network, size or batch (docs/networks.md has a table)."
        problems.append(Problem("warning", "memory", f"{free} GB are free", remedy))
    if shared is not None and shared < LITTLE_SHARED:
        remedy = "Start the container with --shm-size=2g, or set runtime.workers=0."
        problems.append(Problem("warning", "/dev/shm", f"{shared} GB are free for loader processes", remedy))
    return problems


def disks() -> dict[str, dict[str, Any]]:
    """Where segadapt writes -> the folder, and the gigabytes that are free there."""
    import tempfile

    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "runs (working folder)": Path.cwd(),
        "prepared copies": default_prepared_root(),
        "weights": weights_folder(),
        "hub cache": Path(HF_HUB_CACHE),
        "temporary files": Path(tempfile.gettempdir()),
    }
    found = {}
    for name, path in places.items():
        there = next(folder for folder in (path, *path.parents) if folder.is_dir())
        free = shutil.disk_usage(there).free / GB
        found[name] = {"folder": str(path), "free (GB)": round(free, 1), "writable": os.access(there, os.W_OK)}
    return found


def disk_problems(found: dict[str, dict[str, Any]]) -> list[Problem]:
    """Folders that are full or not writable."""
    problems = []
    for name, facts in found.items():
        main = name.startswith(("runs", "temporary"))
        if not facts["writable"]:
            remedy = "Work in a folder of your own." if main else "Set SEGADAPT_CACHE, SEGADAPT_WEIGHTS or HF_HOME."
            problems.append(Problem("error" if main else "warning", facts["folder"], f"{name}: not writable", remedy))
        elif facts["free (GB)"] < LEAST_DISK and main:
            problems.append(Problem("error", facts["folder"], f"{name}: the disk is full", "Free some space."))
        elif facts["free (GB)"] < LITTLE_DISK and main:
            what, remedy = (
                f"{name}: {facts['free (GB)']} GB are free",
                "`segadapt run RECIPE --dry-run` says what it needs.",
            )
            problems.append(Problem("warning", facts["folder"], what, remedy))
    return problems


def variables() -> dict[str, str]:
    """The environment variables that change what segadapt and PyTorch do."""
    return environment(VARIABLES, ("SEGADAPT_", "TORCH_", "NCCL_"))

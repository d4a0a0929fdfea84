"""Where and how things run: device, precision, threads, ranks. Only this file and `ranks` know torch.distributed."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from segadapt.batch_norm import share_statistics
from segadapt.devices import Precision, choose_device, choose_precision
from segadapt.engine import ranks as between
from segadapt.errors import UsageError
from segadapt.processes import usable_cores
from segadapt.sample_randomness import draw_by_sample
from segadapt.settings import Settings
from segadapt.tracking.trackers import TrackerName

__all__ = ["Precision", "Runtime", "RuntimeSettings", "start"]

Made = TypeVar("Made")
MOST_WORKERS = 16
"""Loader processes of a rank, by default."""


class RuntimeSettings(Settings):
    """Settings of the machine; only `precision` changes what is computed (beyond the last bits)."""

    device: str = Field("auto", description="auto (a GPU if there is one), cpu, cuda or cuda:N")
    precision: Literal["fp32", "bf16", "auto"] = Field(  # one list: a union would be two wrong ones in an error
        "fp32", description="fp32, bf16 autocast (weights and losses stay fp32), or auto: bf16 where it is fast"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of a process; null: PyTorch's default")
    workers: int | None = Field(
        None, ge=0, le=256, description="loader processes; null: 0 on a CPU, as many as needed on a GPU"
    )
    compile: bool = Field(
        False,
        description="compile the networks being trained (torch.compile): slow start, then faster steps",
    )
    cuda_graphs: Literal["auto", "on", "off"] = Field(
        "auto",
        description="on a GPU, replay training steps as one CUDA graph. auto: on one rank, wherever a step can be "
        "captured; on: on several ranks too, and an error where it cannot; off: never",
    )
    inference_batch: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="images that a segmenter sees at once in evaluations and pseudo_labels; null: 1 on a CPU, on a GPU "
        "up to 4, by the sizes of network and input",
    )
    trackers: tuple[TrackerName, ...] = Field(
        (), description="where trainings are shown beside the run's own page: tensorboard, mlflow, trackio, wandb"
    )
    track_images_every: int | None = Field(
        None, ge=0, description="steps between pictures of predictions there; null: with each evaluation; 0: none"
    )

    @field_validator("cuda_graphs", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        """YAML reads a bare on and off as true and false."""
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


@dataclass(frozen=True)
class Runtime:
    """A process's place among the ranks, and its device."""

    device: torch.device
    precision: Precision
    rank: int
    ranks: int
    threads: int
    workers: int  # loader processes; with `measure_workers` at most so many
    measure_workers: bool = False  # whether their number is chosen by measuring
    compile: bool = False
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    inference_batch: int | None = (
        None  # images that a segmenter sees at once when it does not train; None: as many as pay
    )
    ahead_on_cpu: bool = False  # treats a CPU as a device that the host runs ahead of: for tests

    @property
    def ahead(self) -> bool:
        """Whether the host runs ahead of the device: then no step reads from it or makes blocking copies to it."""
        return self.device.type != "cpu" or self.ahead_on_cpu

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    @property
    def processor(self) -> str:
        """What rounding depends on: a CPU's instruction set as PyTorch uses it, or a GPU's name."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return str(torch.backends.cpu.get_cpu_capability())

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels-last where it is faster (GPUs; bf16 on a CPU); float32 on a CPU keeps the published layout."""
        plain = self.device.type == "cpu" and self.precision == "fp32"
        return torch.contiguous_format if plain else torch.channels_last

    def place(self, module: nn.Module) -> None:
        """Move a module to the device, in its memory format, and compile its calls if that was asked for.

        The module and the names in its state stay the same, and copies of it are not compiled. Batch norms that learn
        use the activations of all ranks, and dropout draws per sample.
        """
        draw_by_sample(module)
        # A network may know better about float32 on a CPU.
        layout = torch.channels_last if getattr(module, "channels_last", False) else self.memory_format
        module.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        if self.ranks > 1:
            share_statistics(module, between.total)
        if self.compile:
            module.compile()

    def need_compiler(self) -> None:
        """Raise UsageError when networks are to be compiled and that does not work here.

        Takes a few seconds, half a minute the first time, for work that compiling the networks needs anyway.
        """
        if not self.compile:
            return
        torch.compiler.reset()  # discard an earlier training's: PyTorch compiles a function only a few times
        try:
            torch.compile(torch.neg)(torch.ones(2, device=self.device))
        except Exception as error:  # of many kinds: no compiler, no Triton, a full disk
            why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UsageError(
                f"torch.compile does not work on this machine ({why})",
                where="runtime.compile",
                remedy="Install a C++ compiler (on a GPU Triton, too), or leave it out.",
            ) from error

    @contextmanager
    def kernels_by_trial(self) -> Iterator[None]:
        """Context in which cuDNN benchmarks its kernels on each new shape: for work with few shapes."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = before or self.device.type == "cuda"
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before

    def autocast(self) -> AbstractContextManager[None]:
        """Context in which networks run in the chosen precision."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def without_autocast(self) -> AbstractContextManager[None]:
        """Context without autocast: everything runs in the precision of its tensors."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, enabled=False)

    def sum(self, values: Tensor) -> Tensor:
        """`values`, summed in place over the ranks."""
        return between.total(values) if self.ranks > 1 else values

    def any(self, flag: bool) -> bool:
        """Whether this is true on any rank; all ranks must call it."""
        if self.ranks == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.ranks > 1:
            between.wait()

    def from_main(self, make: Callable[[], Made]) -> Made:
        """The result of `make`, which only rank 0 calls, on every rank. See `segadapt.engine.ranks.from_main`."""
        return make() if self.ranks == 1 else between.from_main(make)

    def together(self, work: Callable[[], Made]) -> Made:
        """The result of `work` on this rank, once it has succeeded on all. See `segadapt.engine.ranks.together`."""
        return work() if self.ranks == 1 else between.together(work)

    def need_agreement(self, facts: between.Facts) -> None:
        """Raise UsageError on every rank when one has other facts than rank 0, naming ranks and facts."""
        if self.ranks > 1:
            between.need_agreement(facts)


def loader_processes() -> int:
    """The maximum number of loader processes of this rank beside a GPU: its share of the usable cores, minus one."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    return min(MOST_WORKERS, max(1, usable_cores() // ranks_here - 1))


@contextmanager
def start(settings: RuntimeSettings) -> Iterator[Runtime]:
    """The runtime of this process; under torchrun it joins the group of ranks, and leaves it at the end."""
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = choose_device(settings.device, int(os.environ.get("LOCAL_RANK", "0")))
    if settings.cuda_graphs == "on" and device.type != "cuda":
        raise UsageError("is on, but there is no GPU", where="runtime.cuda_graphs", remedy="Use auto or off.")
    threads_before = torch.get_num_threads()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    workers = settings.workers
    if workers is None:
        workers = loader_processes() if device.type == "cuda" else 0
    precision = choose_precision(settings.precision, device)
    measure = settings.workers is None and device.type == "cuda"
    try:
        with between.group(device.type == "cuda") if ranks > 1 else nullcontext():
            threads = torch.get_num_threads()
            yield Runtime(
                *(device, precision, rank, ranks, threads, workers, measure),
                compile=settings.compile,
                cuda_graphs=settings.cuda_graphs,
                inference_batch=settings.inference_batch,
            )
    finally:
        torch.set_num_threads(threads_before)  # the calling program keeps its own number

"""Options that the verbs with networks share: which model, how images go through it, where it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from segadapt.cli.completion import one_of, several_of, spaces_and_files
from segadapt.cli.data import parse_size
from segadapt.cli.output import progress_bar as progress_bar

if TYPE_CHECKING:
    from segadapt.data.orientation import Exif
    from segadapt.engine.runtime import Runtime
    from segadapt.inference.networks import Precision
    from segadapt.inference.predictor import Predictor
    from segadapt.pipeline.show import Display
    from segadapt.settings import Settings
    from segadapt.weights.saved import SavedModel

AnySettings = TypeVar("AnySettings", bound="Settings")
PUBLISHED_SCALES = "1,0.75,1.25,1.5"
"""Of the published pseudo-labels and multi-scale evaluation, where each goes with its mirror image."""
MODEL = "run folder, stage folder, model.safetensors or published checkpoint"
Scales = Annotated[
    str | None,
    typer.Option(help="Input scales to average over, as in 1,0.75,1.25. Default 1; with --official 1,0.75,1.25,1.5."),
]
Mirror = Annotated[
    bool | None,
    typer.Option(
        "--mirror/--no-mirror", help="Average over the image and its mirror image. Default: with --official only."
    ),
]
Window = Annotated[str | None, typer.Option(metavar="WxH", help="Slide a window of this size over the input.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="The network's input size; default: the model's own.")]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images that the network sees at once. Default: 1 on a CPU; on a GPU up to 4, as memory allows."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", autocompletion=one_of("auto", "cpu", "cuda"))]
PrecisionName = Annotated[str, typer.Option(help="fp32 or bf16.", autocompletion=one_of("fp32", "bf16"))]
ExifOption = Annotated[
    str,
    typer.Option(
        "--exif",
        help="turn or raw: images with an EXIF orientation, as viewers show them or as stored.",
        autocompletion=one_of("turn", "raw"),
    ),
]
Official = Annotated[
    bool,
    typer.Option(
        "--official",
        help="Like the published program: its scales and mirror images, its way of combining them, its corner rule.",
    ),
]
LabelSpaceOption = Annotated[
    str | None,
    typer.Option(
        "--label-space",
        help="Classes of a published model that does not name its own.",
        autocompletion=spaces_and_files,
    ),
]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        help="train_id, label_id (Cityscapes), colour, overlay; separate several by commas.",
        autocompletion=several_of("train_id", "label_id", "colour", "overlay"),
    ),
]


@dataclass(frozen=True)
class Views:
    """How images go through the network, as the options say."""

    scales: tuple[float, ...]
    mirror: bool
    window: tuple[int, int] | None
    size: tuple[int, int] | None
    official: bool
    device: str
    precision: "Precision"
    batch: int | None = None

    @classmethod
    def parse(
        cls,
        scales: str | None,
        mirror: bool | None,
        window: str | None,
        size: str | None,
        official: bool,
        device: str,
        precision: str,
        batch: int | None = None,
    ) -> "Views":
        """From the options' texts; `official` gives the views that are left open. Raises UsageError for a wrong one."""
        if scales is None:
            scales = PUBLISHED_SCALES if official else "1"
        return cls(
            parse_scales(scales),
            official if mirror is None else mirror,
            None if window is None else parse_size(window, "--window"),
            None if size is None else parse_size(size, "--size"),
            official,
            device,
            parse_precision(precision),
            batch,
        )

    def predictor(self, saved: "SavedModel") -> "Predictor":
        """The predictor of a model."""
        from segadapt.devices import choose_device
        from segadapt.inference.predictor import PUBLISHED_RULES, Predictor, ViewRules

        if self.official:
            saved.network.align_corners = type(saved.network).align_corners
        return Predictor(
            saved.network,
            self.size or saved.header.size,
            scales=self.scales,
            mirror=self.mirror,
            window=self.window,
            rules=PUBLISHED_RULES if self.official else ViewRules(),
            device=choose_device(self.device),
            precision=self.precision,
            plain=self.official,
            batch=self.batch,
        )


def load_segmenter(model: Path, label_space: str | None) -> "SavedModel":
    """The model that a path means. Raises UsageError when `--label-space` is not the one that it says itself."""
    from segadapt.data.label_spaces import load_label_space
    from segadapt.errors import UsageError
    from segadapt.inference.model import find_model
    from segadapt.weights.saved import load_any

    given = None if label_space is None else load_label_space(label_space, "--label-space")
    saved = load_any(find_model(model), given)
    if given is not None and given != saved.header.space:
        raise UsageError(
            f"the model is of label space '{saved.header.space.name}'", where="--label-space", remedy="Leave it out."
        )
    return saved


def checked(kind: "type[AnySettings]", **values: object) -> "AnySettings":
    """Settings of a stage from a verb's options. Raises UsageError that names the option which is wrong."""
    from pydantic import ValidationError

    from segadapt.errors import UsageError

    try:
        return kind(**values)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = f"--{str(wrong['loc'][0]).replace('_', '-')}"
        message = wrong["msg"].replace("Input should", "should", 1)
        raise UsageError(
            f"{wrong['input']!r} {message}", where=option, remedy="See what the option says in --help."
        ) from error


@contextmanager
def placing(
    device: str, precision: str, description: str, batch: int | None = None
) -> "Iterator[tuple[Runtime, Display]]":
    """Where a verb runs (under torchrun: one of its ranks), and its progress on stderr."""
    from segadapt.engine import runtime
    from segadapt.pipeline.show import Display

    settings = runtime.RuntimeSettings(device=device, precision=parse_precision(precision), inference_batch=batch)
    with runtime.start(settings) as place:
        display = Display(place.is_main)
        with display.showing(description):
            yield place, display


def parse_precision(text: str) -> "Precision":
    """`fp32` or `bf16`. Raises UsageError for anything else."""
    from segadapt.errors import UsageError

    if text not in ("fp32", "bf16"):
        raise UsageError(f"'{text}' is not a precision", where="--precision", remedy="Use fp32 or bf16.")
    return "bf16" if text == "bf16" else "fp32"


def parse_exif(text: str) -> "Exif":
    """`turn` or `raw`. Raises UsageError for anything else."""
    from segadapt.errors import UsageError

    if text not in ("turn", "raw"):
        raise UsageError(f"'{text}' is not a way to read EXIF", where="--exif", remedy="Use turn or raw.")
    return "raw" if text == "raw" else "turn"


def parse_scales(text: str) -> tuple[float, ...]:
    """`1,0.75` -> numbers. Raises UsageError for what is not a list of scales."""
    from segadapt.errors import UsageError

    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 8 for scale in scales):
        raise UsageError(
            f"'{text}' is not a list of scales",
            where="--scales",
            remedy="Give numbers up to 8, for instance 1,0.75,1.25.",
        )
    return scales

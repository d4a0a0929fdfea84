"""What `export` does for a file that ends in .onnx, and its options."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from segadapt.cli.data import parse_size
from segadapt.cli.evaluate import Data
from segadapt.cli.output import OutputFile, console_beside
from segadapt.cli.views import load_segmenter

if TYPE_CHECKING:
    from segadapt.data.dataset import SegmentationDataset
    from segadapt.export.onnx_file import Exported, Wanted
    from segadapt.export.onnx_graph import Output
    from segadapt.export.onnx_scores import Row
    from segadapt.weights.saved import SavedModel

PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="ONNX: fp32 (default), fp16 or int8 (with --calibrate).")
]
CalibrateOption = Annotated[
    list[Path] | None,
    typer.Option("--calibrate", metavar="FOLDER", help="ONNX, int8: target images; may be repeated."),
]
CheckOption = Annotated[
    list[Path] | None,
    typer.Option("--check", metavar="IMAGES", help="ONNX: compare on these images instead of generated ones."),
]
OutputsOption = Annotated[
    str | None, typer.Option("--outputs", help="ONNX: confidence or logits in addition to labels; comma-separated.")
]
SizeOption = Annotated[
    str | None, typer.Option("--size", metavar="WxH", help="ONNX: the network's input size; default: the model's own.")
]
LeastOption = Annotated[
    float | None,
    typer.Option(
        "--least-agreement", help="ONNX: least percent of labels equal to PyTorch's; default 99.9, fp16 99, int8 90."
    ),
]
EvaluateOption = Annotated[
    bool,
    typer.Option("--evaluate", help="ONNX: mIoU and latency compared with PyTorch, on the run's target or --root."),
]
LayoutOption = Annotated[str | None, typer.Option("--layout", help="ONNX, --evaluate: layout of other data.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="ONNX, --evaluate: folder of other data.")]
SplitOption = Annotated[str | None, typer.Option("--split", help="ONNX, --evaluate: its split, default val.")]
JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="ONNX: write agreement and scores; - prints them.")
]


@dataclass(frozen=True)
class OnnxOptions:
    """The options as they were typed."""

    precision: str | None
    calibrate: list[Path] | None
    check: list[Path] | None
    outputs: str | None
    size: str | None
    least_agreement: float | None
    evaluate: bool
    layout: str | None
    root: Path | None
    split: str | None
    json: str | None

    def given(self) -> dict[str, object]:
        """Option -> value."""
        return {f"--{field.name.replace('_', '-')}": getattr(self, field.name) for field in fields(self)}

    def export(self, model: Path, label_space: str | None, output: OutputFile) -> None:
        """Make the file, check it, write it, and score it if asked for."""
        from segadapt.errors import UsageError
        from segadapt.export.onnx_check import images_of
        from segadapt.export.onnx_file import as_record, export_onnx
        from segadapt.export.onnx_graph import need_onnx
        from segadapt.export.onnx_scores import setting
        from segadapt.files import write_json
        from segadapt.inference.model import find_model

        wanted = self._wanted()
        need_onnx()
        record = None if self.json is None else OutputFile.parse(self.json, "--json", (".json",))
        beside = output if record is None or output.path is None else record  # whichever may be standard output
        if record is not None and record.path is None and output.path is None:
            raise UsageError("cannot be standard output as well", where="--json", remedy="Give a file for one of them.")
        file = find_model(model)
        saved = load_segmenter(file, label_space)
        dataset = self._dataset(file, saved, wanted) if self.evaluate else None
        images = {"check": images_of(self.check or []), "calibration": images_of(self.calibrate or [])}
        exported = export_onnx(file, saved, wanted, **images)
        with output.file() as path:
            exported.write(path)
        beside.say(_in_words(exported, output))
        rows: list[Row] = []
        if dataset is not None:
            rows = exported.score(dataset)
            _print(rows, setting(), console_beside(beside))
        if record is not None:
            with record.file() as path:
                write_json(path, as_record(exported, rows, setting()))

    def _wanted(self) -> "Wanted":
        """What kind of file. Raises UsageError for a wrong option."""
        from segadapt.errors import UsageError, nearest
        from segadapt.export.onnx_check import PRECISIONS
        from segadapt.export.onnx_file import Wanted
        from segadapt.export.onnx_graph import OUTPUTS

        precision = self.precision or "fp32"
        if precision not in PRECISIONS:
            raise UsageError(f"'{precision}' is not a precision", where="--precision", remedy="Use fp32, fp16 or int8.")
        if precision == "int8" and not self.calibrate:
            raise UsageError("int8 needs images to calibrate on", where="--precision", remedy="Add --calibrate FOLDER.")
        if self.calibrate and precision != "int8":
            raise UsageError("applies to --precision int8 only", where="--calibrate", remedy="Leave one of them out.")
        if not self.evaluate and (self.layout or self.root or self.split):
            raise UsageError("belong to --evaluate", where="--layout, --root and --split", remedy="Add it.")
        if self.least_agreement is not None and not 0 <= self.least_agreement <= 100:
            raise UsageError(
                f"{self.least_agreement:g} is not a percentage",
                where="--least-agreement",
                remedy="Give a number from 0 to 100.",
            )
        names = [name.strip() for name in (self.outputs or "").split(",") if name.strip()]
        for name in names:
            if name not in OUTPUTS:
                raise UsageError(f"unknown output '{name}'", where="--outputs", remedy=nearest(name, list(OUTPUTS)))
        size = None if self.size is None else parse_size(self.size, "--size")
        outputs = cast("tuple[Output, ...]", tuple(names))
        return Wanted(precision, outputs, size, self.least_agreement)

    def _dataset(self, file: Path, saved: "SavedModel", wanted: "Wanted") -> "SegmentationDataset":
        """The labelled images to score on: before the work, so that what is wrong with them is said at once."""
        from segadapt.data.settings import open_domain
        from segadapt.errors import UsageError

        data = Data("both" if self.root else "target", self.layout, self.root, {}, self.split, None, None)
        domains = data.of(file)[1]
        if len(domains) != 1:
            raise UsageError(
                f"the run's target has several domains ({', '.join(domains)})",
                where="--evaluate",
                remedy="Name one of them with --layout and --root.",
            )
        [(name, settings)] = domains.items()
        split = data.split_of(name, settings)
        return open_domain(settings, saved.header.space, split, wanted.size or saved.header.size)


def _in_words(exported: "Exported", output: OutputFile) -> str:
    found = exported.agreement
    place = "" if output.path is None else f"written: {output.path}: "
    return (
        f"{place}{exported.saved.network.in_words()}, {exported.precision}, {found.percent:.3f} % of the labels of "
        f"{found.images} images as PyTorch's"
    )


def _print(rows: "list[Row]", setting: dict[str, Any], console: Any) -> None:
    """A table of mIoU, latency and size."""
    from rich.table import Table

    table = Table(highlight=False)
    table.add_column("model")
    for title in ("mIoU", "ms an image", "MB"):
        table.add_column(title, justify="right")
    for row in rows:
        miou = "–" if row.miou is None else f"{row.miou:.2f}"
        table.add_row(row.name, miou, f"{row.milliseconds:.1f}", f"{row.megabytes:.2f}")
    console.print(table)
    console.print(
        f"CPU {setting['instructions']}, {setting['threads']} threads, PyTorch {setting['torch']}, "
        f"ONNX Runtime {setting['onnxruntime']}",
        soft_wrap=True,
        markup=False,
    )

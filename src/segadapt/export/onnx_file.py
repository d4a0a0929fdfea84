"""A trained segmenter as an ONNX file: exported, checked against PyTorch, and only then written."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segadapt.data.dataset import SegmentationDataset
from segadapt.export.onnx_check import (
    LEAST,
    Agreement,
    NamedImage,
    Precision,
    agreement,
    built_in_images,
    labels_of,
    need_agreement,
    session,
)
from segadapt.export.onnx_graph import (
    EXPORTERS,
    Exporter,
    Output,
    need_onnx,
    network_graph,
    surroundings,
    whole_graph,
)
from segadapt.export.onnx_metadata import metadata, put
from segadapt.export.onnx_precision import converted
from segadapt.export.onnx_scores import Labels, Pixels, Row, scored
from segadapt.files import sha256, write_bytes
from segadapt.inference.predictor import Predictor
from segadapt.weights.saved import SavedModel

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MEGABYTE = 1e6


@dataclass(frozen=True)
class Wanted:
    """What kind of ONNX file."""

    precision: Precision = "fp32"
    outputs: tuple[Output, ...] = ("labels",)
    size: tuple[int, int] | None = None  # (W, H) of the network's input; None: the model's own
    least: float | None = None  # percent of the labels that must be PyTorch's; None: `LEAST`
    exporters: Sequence[Exporter] = EXPORTERS  # of torch.onnx, tried in this order


@dataclass(frozen=True)
class Exported:
    """A checked model, not yet written."""

    model: "onnx.ModelProto"
    plain: "onnx.ModelProto"  # the same in fp32
    predictor: Predictor  # PyTorch's
    source: Path
    saved: SavedModel
    precision: Precision
    exporter: Exporter
    agreement: Agreement

    def write(self, path: Path) -> None:
        """Whole or not at all. Raises as `files.write_bytes` does."""
        write_bytes(path, self.model.SerializeToString())

    def score(self, dataset: SegmentationDataset, limit: int | None = None) -> list[Row]:
        """mIoU and latency of PyTorch, of the graph in fp32, and of this precision, side by side.

        Labels are in the model's label space. Raises UsageError for a label whose size differs from its image's.
        """
        models: list[tuple[str, float, Labels]] = [
            ("PyTorch fp32", self.source.stat().st_size / MEGABYTE, self.predictor.labels)
        ]
        graphs = [("fp32", self.plain)] + ([] if self.precision == "fp32" else [(str(self.precision), self.model)])
        for name, graph in graphs:
            content = graph.SerializeToString()
            models.append((f"ONNX {name}", len(content) / MEGABYTE, partial(_one, session(content))))
        return scored(models, dataset, self.saved.header.space, limit)


def _one(running: "onnxruntime.InferenceSession", image: Pixels) -> Pixels:
    found: Pixels = labels_of(running, image[None])[0]
    return found


def export_onnx(
    source: Path,
    saved: SavedModel,
    wanted: Wanted = Wanted(),
    *,
    check: Sequence[NamedImage] = (),
    calibration: Sequence[NamedImage] = (),
) -> Exported:
    """The model that was read from the file `source`, as ONNX.

    It is checked on the images `check` (none: generated ones): the fp32 graph must reproduce 99.9 % of the labels of
    `segadapt predict`, and a conversion of it `wanted.least`. int8 is calibrated on `calibration`.

    Raises UsageError if the extra is not installed, for a size that the network does not accept and for int8 without
    images; SegadaptError when the network cannot be exported or too few labels are equal.
    """
    need_onnx()
    header = saved.header
    size = wanted.size or header.size
    around = surroundings(saved.network, size).needed_for(wanted.outputs)
    predictor = Predictor(saved.network.cpu(), size)
    network = network_graph(saved.network, size, wanted.exporters)
    plain = whole_graph(network.model, around)
    images = list(check) or built_in_images(size)
    found = agreement(session(plain.SerializeToString()), predictor, images)
    strict = wanted.least if wanted.precision == "fp32" and wanted.least is not None else LEAST["fp32"]
    need_agreement(found, strict, "fp32")
    model = plain
    if wanted.precision != "fp32":
        model = whole_graph(converted(network.model, wanted.precision, around, calibration), around)
        found = agreement(session(model.SerializeToString()), predictor, images)
        need_agreement(found, LEAST[wanted.precision] if wanted.least is None else wanted.least, wanted.precision)
    facts = metadata(header, around, precision=wanted.precision, exporter=network.exporter, model_sha256=sha256(source))
    put(model, facts | {"agreement_percent": f"{found.percent:.3f}"})
    return Exported(model, plain, predictor, source, saved, wanted.precision, network.exporter, found)


def as_record(exported: Exported, rows: Sequence[Row], setting: dict[str, Any]) -> dict[str, Any]:
    """What `--json` writes: agreement, and scores with the conditions of their measurement."""
    found = exported.agreement
    return {
        "model": str(exported.source),
        "precision": exported.precision,
        "exporter": exported.exporter,
        "agreement": {
            "percent": found.percent,
            "images": found.images,
            "worst": found.worst,
            "worst_percent": found.worst_percent,
        },
        "scores": [row.as_dict() for row in rows],
        "setting": setting,
    }

"""A segmenter as one ONNX graph, from the pixels of a decoder to labels.

    images       uint8 (N, H, W, 3), RGB as Pillow gives it; any N, H and W
      -> labels      uint8 (N, H, W), train ids
         confidence  float32 (N, H, W), the probability of each label, if asked for
         logits      float32 (N, C, H, W), if asked for

Everything that `segadapt predict` does around the network is in the graph: resizing to the network's input size with
Pillow's bicubic filter, the pixel format, upsampling of the logits to the image's own size by the network's corner
rule, and the arg-max. The three parts stay separate until the end, so that only the network is converted to another
precision.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from segadapt.errors import SegadaptError
from segadapt.extras import need_package
from segadapt.models.segmenter import PixelFormat, Segmenter

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Opset: the first whose Resize has Pillow's antialiasing."""
IR_VERSION = 10
"""IR version: what ONNX Runtime reads since 1.18 (2024)."""
Output = Literal["labels", "confidence", "logits"]
OUTPUTS: tuple[Output, ...] = ("labels", "confidence", "logits")
IMAGES, PIXELS, NATIVE = "images", "pixels", "native_logits"
"""Names of values: the input, what enters the network, and what leaves it."""
Exporter = Literal["dynamo", "torchscript"]
EXPORTERS: tuple[Exporter, ...] = ("dynamo", "torchscript")
"""Exporters of torch.onnx, in the order in which they are tried."""


def need_onnx() -> None:
    """Raise UsageError when the packages of the extra are not installed."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        need_package(name, "onnx", ".onnx")


@dataclass(frozen=True)
class NetworkGraph:
    """The network alone in ONNX: `PIXELS` float32 (N, 3, h, w) -> `NATIVE` float32 (N, C, h', w')."""

    model: "onnx.ModelProto"
    exporter: Exporter


@dataclass(frozen=True)
class Surroundings:
    """What surrounds the network."""

    size: tuple[int, int]  # (W, H) of the network's input
    pixels: PixelFormat
    align_corners: bool
    classes: int
    outputs: tuple[Output, ...] = ("labels",)

    def needed_for(self, outputs: Sequence[Output]) -> "Surroundings":
        """The same with other outputs, in their usual order; labels are always included."""
        return replace(self, outputs=tuple(name for name in OUTPUTS if name == "labels" or name in outputs))


def surroundings(network: Segmenter, size: tuple[int, int]) -> Surroundings:
    """What `network` needs around it at an input size of (W, H). Raises UsageError for a size that is too small."""
    network.need_size(*size, where="--size")
    return Surroundings(size, network.pixels, network.align_corners, network.classes)


class _Logits(nn.Module):
    """The main head's logits of pixels that are in the network's own format."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.segment(pixels).logits.float()


def network_graph(network: Segmenter, size: tuple[int, int], exporters: Sequence[Exporter] = EXPORTERS) -> NetworkGraph:
    """The network at an input size of (W, H), for any number of images.

    With torch.onnx's exporter based on torch.export; if that fails, the older one based on TorchScript. Neither is
    trusted: see `onnx_check`. If both fail, raises SegadaptError with the first one's reason.
    """
    module = _Logits(network.for_inference().cpu())
    reasons = []
    for exporter in exporters:
        try:
            with quiet():
                return NetworkGraph(_exported(module, size, exporter), exporter)
        except Exception as error:  # from the exporter or its dependencies: in any case there is no graph
            reasons.append(_reason(error))
    raise SegadaptError(
        f"{network.title or type(network).__name__} cannot be written as ONNX ({reasons[0]})",
        where="export",
        remedy="docs/export.md lists the networks that can; model.safetensors is for segadapt.load.",
    )


def _exported(module: nn.Module, size: tuple[int, int], exporter: Exporter) -> "onnx.ModelProto":
    import onnx

    # Two images: with one, torch.export would treat the batch size as a constant.
    example = torch.zeros(2, 3, size[1], size[0])
    if exporter == "dynamo":
        shapes = {"pixels": {0: torch.export.Dim("N")}}
        # Exported here, not by torch.onnx, which would fall back to a graph for batches of exactly two.
        program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)
        made = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, input_names=[PIXELS], output_names=[NATIVE], verbose=False
        )
        assert made is not None
        return made.model_proto
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            module,
            (example,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[PIXELS],
            output_names=[NATIVE],
            dynamic_axes={PIXELS: {0: "N"}, NATIVE: {0: "N"}},
        )
        return onnx.load(file)


def _reason(error: Exception) -> str:
    """The first line of the innermost error that has a message."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')[:200]}" if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Context that silences developer messages of exporters and converters."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def whole_graph(network: "onnx.ModelProto", around: Surroundings) -> "onnx.ModelProto":
    """The network with its surroundings; the network's own graph is unchanged."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(network)
    graph = whole.graph
    first, last = _before(around), _after(around)
    inner = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first.nodes, *inner, *last.nodes])
    graph.initializer.extend([*first.constants, *last.constants])
    del graph.input[:], graph.output[:]
    graph.input.append(onnx.helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ["N", "H", "W", 3]))
    graph.output.extend(_output(name, around.classes) for name in around.outputs)
    graph.name = "segadapt"
    whole.ir_version = IR_VERSION
    whole.producer_name = "segadapt"
    onnx.checker.check_model(whole)
    return whole


def input_graph(around: Surroundings) -> "onnx.ModelProto":
    """What precedes the network, as a separate model: `IMAGES` -> `PIXELS`, for calibration."""
    import onnx

    part = _before(around)
    width, height = around.size
    pixels = onnx.helper.make_tensor_value_info(PIXELS, onnx.TensorProto.FLOAT, ["N", 3, height, width])
    images = onnx.helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ["N", "H", "W", 3])
    graph = onnx.helper.make_graph(part.nodes, "segadapt", [images], [pixels], part.constants)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


@dataclass(frozen=True)
class _Part:
    nodes: "list[onnx.NodeProto]"
    constants: "list[onnx.TensorProto]"


def _before(around: Surroundings) -> _Part:
    """`IMAGES` -> `PIXELS`: channels first, Pillow's bicubic resizing, the pixel format."""
    from onnx import TensorProto, helper

    width, height = around.size
    form = around.pixels
    nodes = [
        helper.make_node("Transpose", [IMAGES], ["segadapt/planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Shape", ["segadapt/planes"], ["segadapt/batch"], start=0, end=2),
        helper.make_node("Concat", ["segadapt/batch", "segadapt/size"], ["segadapt/resized_shape"], axis=0),
        # On bytes, with these attributes, ONNX Runtime computes what Pillow does, rounding of both passes included: a
        # level of difference in less than 0.1 % of the values. (Pillow 13 resizes some images, tall ones above all,
        # by columns first: then a level of difference in a quarter of them.)
        helper.make_node(
            "Resize",
            ["segadapt/planes", "", "", "segadapt/resized_shape"],
            ["segadapt/resized"],
            mode="cubic",
            antialias=1,
            cubic_coeff_a=-0.5,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Cast", ["segadapt/resized"], ["segadapt/rgb"], to=TensorProto.FLOAT),
    ]
    constants = [
        helper.make_tensor("segadapt/size", TensorProto.INT64, [2], [height, width]),
        helper.make_tensor("segadapt/mean", TensorProto.FLOAT, [1, 3, 1, 1], form.mean),
        helper.make_tensor("segadapt/std", TensorProto.FLOAT, [1, 3, 1, 1], form.std),
    ]
    ordered = "segadapt/rgb"
    if form.order == "bgr":
        ordered = "segadapt/bgr"
        nodes.append(helper.make_node("Gather", ["segadapt/rgb", "segadapt/order"], [ordered], axis=1))
        constants.append(helper.make_tensor("segadapt/order", TensorProto.INT64, [3], [2, 1, 0]))
    nodes += [
        helper.make_node("Sub", [ordered, "segadapt/mean"], ["segadapt/centred"]),
        helper.make_node("Div", ["segadapt/centred", "segadapt/std"], [PIXELS]),
    ]
    return _Part(nodes, constants)


def _after(around: Surroundings) -> _Part:
    """`NATIVE` and the size of `IMAGES` -> the outputs."""
    from onnx import TensorProto, helper

    corners = "align_corners" if around.align_corners else "half_pixel"
    nodes = [
        helper.make_node("Shape", [NATIVE], ["segadapt/images_classes"], start=0, end=2),
        helper.make_node("Shape", [IMAGES], ["segadapt/image_size"], start=1, end=3),
        helper.make_node("Concat", ["segadapt/images_classes", "segadapt/image_size"], ["segadapt/full"], axis=0),
        helper.make_node(
            "Resize",
            [NATIVE, "", "", "segadapt/full"],
            ["logits"],
            mode="linear",
            coordinate_transformation_mode=corners,
        ),
        helper.make_node("ArgMax", ["logits"], ["segadapt/best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["segadapt/best"], ["labels"], to=TensorProto.UINT8),
    ]
    constants = []
    if "confidence" in around.outputs:
        constants.append(helper.make_tensor("segadapt/classes_axis", TensorProto.INT64, [1], [1]))
        nodes += [
            helper.make_node("Softmax", ["logits"], ["segadapt/probabilities"], axis=1),
            helper.make_node(
                "ReduceMax", ["segadapt/probabilities", "segadapt/classes_axis"], ["confidence"], keepdims=0
            ),
        ]
    return _Part(nodes, constants)


def _output(name: Output, classes: int) -> "onnx.ValueInfoProto":
    from onnx import TensorProto, helper

    shape: list[str | int | None] = ["N", classes, "H", "W"] if name == "logits" else ["N", "H", "W"]
    kind = TensorProto.UINT8 if name == "labels" else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, shape)

"""Reduced precision for the network's part of an ONNX graph; its surroundings are unchanged."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segadapt.errors import SegadaptError, UsageError
from segadapt.export.onnx_check import NamedImage, Precision, session
from segadapt.export.onnx_graph import IMAGES, NATIVE, PIXELS, Surroundings, input_graph, quiet

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

QUANTIZED = ("Conv", "MatMul", "Gemm")
"""Operations that are computed in 8 bits: nearly all of the work."""


def converted(
    model: "onnx.ModelProto", precision: Precision, around: Surroundings, calibration: Sequence[NamedImage]
) -> "onnx.ModelProto":
    """The network's graph in another precision; input and output stay float32.

    fp16: weights and activations in half precision. int8: convolutions and matrix products in 8 bits, activations by
    their ranges on the `calibration` images (post-training, static), weights per output channel. Raises
    UsageError for int8 without images, SegadaptError when ONNX Runtime cannot convert it.
    """
    if precision == "fp32":
        return model
    if precision == "int8" and not calibration:
        raise UsageError(
            "needs images to calibrate on", where="--precision int8", remedy="Add --calibrate FOLDER: target images."
        )
    try:
        with quiet():
            return _in_half(model) if precision == "fp16" else _in_8_bits(model, around, calibration)
    except Exception as error:  # the tool does not document what it raises
        line = (str(error).splitlines() or [""])[0].rstrip(".")
        raise SegadaptError(
            f"the network cannot be converted to {precision} ({type(error).__name__}: {line[:200]})",
            where="export",
            remedy="Use --precision fp32.",
        ) from error


def _in_half(model: "onnx.ModelProto") -> "onnx.ModelProto":
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    half.topological_sort()  # its casts were appended at the end
    found: onnx.ModelProto = half.model
    return found


def _in_8_bits(model: "onnx.ModelProto", around: Surroundings, calibration: Sequence[NamedImage]) -> "onnx.ModelProto":
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        given, plain, quantized = (Path(folder) / f"{name}.onnx" for name in ("given", "plain", "quantized"))
        onnx.save(model, given)
        # Symbolic shapes are for text transformers; these are images of one size.
        quant_pre_process(given, plain, skip_symbolic_shape=True)
        quantize_static(
            plain,
            quantized,
            _Calibration(around, calibration),
            op_types_to_quantize=list(QUANTIZED),
            # The classifier decides between close logits: it is cheap, and 8 bits there would change labels.
            nodes_to_exclude=_last_nodes(onnx.load(plain)),
            per_channel=True,
            # CPUs without VNNI add 8-bit products in 16 bits, which overflows; with 7-bit weights it does not.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)


def _last_nodes(model: "onnx.ModelProto") -> list[str]:
    """The nearest nodes before the logits that would be quantized: those of the classifier."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    waiting, found, seen = [NATIVE], [], set[str]()
    while waiting:
        name = waiting.pop()
        node = made_by.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in QUANTIZED:
            found.append(node.name)
        else:
            waiting.extend(node.input)
    return found


class _Calibration:
    """onnxruntime's CalibrationDataReader over images: each as the network receives it."""

    def __init__(self, around: Surroundings, images: Sequence[NamedImage]) -> None:
        self.images, self.place = images, 0
        self.before = session(input_graph(around).SerializeToString())

    def get_next(self) -> "dict[str, NDArray[np.float32]] | None":
        if self.place == len(self.images):
            return None
        image = self.images[self.place].pixels
        self.place += 1
        return {PIXELS: self.before.run([PIXELS], {IMAGES: image[None]})[0]}

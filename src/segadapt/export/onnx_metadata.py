"""An exported model's description of itself: named strings in the ONNX file's `metadata_props`.

Lists and mappings are JSON. A program that runs the model needs at most `classes`, `colors` and `ignore`; the rest is
provenance.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from segadapt.data.label_spaces import IGNORE
from segadapt.export.onnx_graph import Exporter, Surroundings
from segadapt.version import __version__
from segadapt.weights.saved import ModelHeader

if TYPE_CHECKING:
    import onnx

SAID = {True: "yes", False: "no", None: "unknown"}


def metadata(
    header: ModelHeader, around: Surroundings, *, precision: str, exporter: Exporter, model_sha256: str
) -> dict[str, str]:
    """The facts of a model file's header and of its export; `agreement` is added once it is known."""
    space, (width, height), form = header.space, around.size, around.pixels
    facts: dict[str, Any] = {
        "segadapt_version": __version__,
        "task": "semantic segmentation",
        "input": "images: uint8 (N, H, W, 3), RGB, 0..255, any N, H and W",
        "outputs": list(around.outputs),
        "label_space": space.name,
        "classes": list(space.classes),
        "colors": space.colors.tolist(),
        "ids": {name: [list(raw) for raw in ids] for name, ids in space.ids.items()},
        "ignore": IGNORE,
        "network": header.network,
        "network_options": header.options,
        "network_size": f"{width}x{height}",
        "pixel_format": {
            "name": form.name,
            "order": form.order,
            "mean": list(form.mean),
            "std": list(form.std),
            "note": "applied inside the graph",
        },
        "align_corners": around.align_corners,
        "precision": precision,
        "exporter": exporter,
        "method": header.method,
        "stage": header.stage,
        "step": header.step,
        "selection": header.selection,
        "used_target_labels": SAID[header.used_target_labels],
        "model_sha256": model_sha256,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}


def put(model: "onnx.ModelProto", facts: Mapping[str, str]) -> None:
    """Add these facts to those of the model."""
    for key, value in facts.items():
        found = next((one for one in model.metadata_props if one.key == key), None)
        entry = model.metadata_props.add() if found is None else found
        entry.key, entry.value = key, value

"""segadapt: adapt a semantic segmenter from a labelled domain to an unlabelled one.

model = segadapt.load("runs/gta5")      # also: a stage folder, a model.safetensors, a published .pth, hf://USER/NAME
result = model.predict("street.jpg")    # labels (H, W) uint8, probabilities (C, H, W), .overlay(), .save()

model = segadapt.adapt("rendered", "camera", ["road", "car"], out="runs/mine")      # two folders, or data sets
scores = segadapt.evaluate(model, pairs)      # any iterable of (image, labels): scores.miou, scores.per_class

done = segadapt.run_recipe("mine.yaml", "runs/mine", {"seed": 1})      # a shipped recipe's name, or a file
done.scores, done.model                 # mIoU by stage and domain; the model to load

segadapt.load_plugin("my_method.py")      # your own methods, networks and layouts; see `segadapt.plugin`

Failures raise SegadaptError; its subclass UsageError (also a ValueError) is for mistakes that the caller can fix.
"""

from typing import TYPE_CHECKING, Any

from segadapt.errors import SegadaptError, SegadaptErrors, Stopped, UsageError, UsageErrors
from segadapt.version import __version__

if TYPE_CHECKING:
    from segadapt.data.catalog import register_layout
    from segadapt.evaluation.own_images import Scores, evaluate
    from segadapt.inference.model import Model, Prediction, load
    from segadapt.methods.registry import register_method
    from segadapt.models.networks import register_network
    from segadapt.pipeline.plan import Choice
    from segadapt.pipeline.result import RunResult, StageResult
    from segadapt.pipeline.run import run_recipe
    from segadapt.plugin_loading import load_plugin
    from segadapt.setup.adapt import adapt

__all__ = [
    "Choice",
    "Model",
    "Prediction",
    "RunResult",
    "Scores",
    "SegadaptError",
    "SegadaptErrors",
    "StageResult",
    "Stopped",
    "UsageError",
    "UsageErrors",
    "__version__",
    "adapt",
    "evaluate",
    "load",
    "load_plugin",
    "register_layout",
    "register_method",
    "register_network",
    "run_recipe",
]

_HOMES = {
    **dict.fromkeys(("Model", "Prediction", "load"), "segadapt.inference.model"),
    **dict.fromkeys(("RunResult", "StageResult"), "segadapt.pipeline.result"),
    **dict.fromkeys(("Scores", "evaluate"), "segadapt.evaluation.own_images"),
    "Choice": "segadapt.pipeline.plan",
    "adapt": "segadapt.setup.adapt",
    "load_plugin": "segadapt.plugin_loading",
    "register_layout": "segadapt.data.catalog",
    "register_method": "segadapt.methods.registry",
    "register_network": "segadapt.models.networks",
    "run_recipe": "segadapt.pipeline.run",
}


def __getattr__(name: str) -> Any:
    # Not imported above: `segadapt --help` must not wait for torch.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'segadapt' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__

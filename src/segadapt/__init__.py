"""segadapt: adapt a semantic segmenter from a labelled domain to an unlabelled one.

model = segadapt.load("runs/gta5")      # also: a stage folder, a model.safetensors, a published .pth, hf://USER/NAME
result = model.predict("street.jpg")    # labels (H, W) uint8, probabilities (C, H, W), .overlay(), .save()

segadapt.predict_video(model, "drive.mp4", "predicted.mp4")        # classes over the frames, sound kept
for frame, prediction in segadapt.predict_frames(model, "drive.mp4"):      # or a camera: 0
    frame.time, prediction.labels       # seconds; (H, W) uint8

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
    from segadapt.inference.model import LabelledImage, Model, Prediction, load
    from segadapt.methods.registry import register_method
    from segadapt.models.networks import register_network
    from segadapt.pipeline.plan import Choice
    from segadapt.pipeline.result import RunResult, StageResult
    from segadapt.pipeline.run import run_recipe
    from segadapt.plugin_loading import load_plugin
    from segadapt.setup.adapt import adapt
    from segadapt.video.predict import VideoFrame, predict_frames, predict_video

__all__ = [
    "Choice",
    "LabelledImage",
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
    "VideoFrame",
    "__version__",
    "adapt",
    "evaluate",
    "load",
    "load_plugin",
    "predict_frames",
    "predict_video",
    "register_layout",
    "register_method",
    "register_network",
    "run_recipe",
]

_HOMES = {
    **dict.fromkeys(("LabelledImage", "Model", "Prediction", "load"), "segadapt.inference.model"),
    **dict.fromkeys(("RunResult", "StageResult"), "segadapt.pipeline.result"),
    **dict.fromkeys(("Scores", "evaluate"), "segadapt.evaluation.own_images"),
    **dict.fromkeys(("VideoFrame", "predict_frames", "predict_video"), "segadapt.video.predict"),
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

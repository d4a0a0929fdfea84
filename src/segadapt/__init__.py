"""segadapt: adapt a semantic segmenter from a labelled domain to an unlabelled one.

model = segadapt.load("runs/gta5")      # also: a stage folder, a model.safetensors, a published .pth
result = model.predict("street.jpg")    # labels (H, W) uint8, probabilities (C, H, W), .overlay(), .save()

done = segadapt.run_recipe("mine.yaml", "runs/mine", {"seed": 1})      # a shipped recipe's name, or a file
done.scores, done.model                 # mIoU by stage and domain; the model to load

segadapt.register_network("my_net", MyNet)                             # a network of one's own, see docs/networks.md

What fails raises a SegadaptError, of which UsageError (a ValueError too) is what the caller can mend.
"""

from typing import TYPE_CHECKING, Any

from segadapt.errors import SegadaptError, SegadaptErrors, Stopped, UsageError, UsageErrors
from segadapt.version import __version__

if TYPE_CHECKING:
    from segadapt.inference.model import Model, Prediction, load
    from segadapt.models.networks import register_network
    from segadapt.pipeline.plan import Choice
    from segadapt.pipeline.result import RunResult, StageResult
    from segadapt.pipeline.run import run_recipe

__all__ = [
    "Choice",
    "Model",
    "Prediction",
    "RunResult",
    "SegadaptError",
    "SegadaptErrors",
    "StageResult",
    "Stopped",
    "UsageError",
    "UsageErrors",
    "__version__",
    "load",
    "register_network",
    "run_recipe",
]

_HOMES = {
    **dict.fromkeys(("Model", "Prediction", "load"), "segadapt.inference.model"),
    **dict.fromkeys(("RunResult", "StageResult"), "segadapt.pipeline.result"),
    "Choice": "segadapt.pipeline.plan",
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

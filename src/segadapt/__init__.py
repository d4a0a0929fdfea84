"""segadapt: adapt a semantic segmenter from a labelled domain to an unlabelled one.

model = segadapt.load("runs/gta5")      # also: a stage folder, a model.safetensors, a published .pth
result = model.predict("street.jpg")    # labels (H, W) uint8, probabilities (C, H, W), .overlay(), .save()
"""

from typing import TYPE_CHECKING, Any

from segadapt.version import __version__

if TYPE_CHECKING:
    from segadapt.inference.model import Model, Prediction, load

__all__ = ["Model", "Prediction", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Not imported above: `segadapt --help` must not wait for torch.
    if name in ("Model", "Prediction", "load"):
        from segadapt.inference import model

        return getattr(model, name)
    raise AttributeError(f"module 'segadapt' has no attribute '{name}'")

"""A trained model in Python: `segadapt.load(path).predict("street.jpg")`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import LabelSpace
from segadapt.data.reading import read_rgb
from segadapt.errors import UsageError
from segadapt.files import is_file, is_folder, user_path
from segadapt.inference.formats import OPACITY, Format, overlay, picture
from segadapt.inference.networks import Precision
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import save_png
from segadapt.models.saved import ModelHeader, load_any
from segadapt.plain_data import read_yaml

MODEL = "model.safetensors"
"""The selected model in a stage's folder."""
RECIPE = "recipe.yaml"
UPPER_BOUND = "target_trained"
"""The method that is no answer to the task but its upper bound: `load` of a run does not mean it."""
STYLE = "tgstn"
"""The method whose model is no segmenter but a generator."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about one image, at the image's own size."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    labels: NDArray[np.uint8]  # (H, W) train ids
    probabilities: NDArray[np.float32]  # (C, H, W), sum 1 over the classes
    label_space: LabelSpace

    def overlay(self, opacity: float = OPACITY) -> Image.Image:
        """The image with the colours of its classes over it."""
        return overlay(self.image, self.labels, self.label_space, opacity)

    def save(self, path: Path | str, format: Format = "colour") -> None:
        """Write the labels as PNG: `train_id`, `label_id` (Cityscapes), `colour` or `overlay`."""
        save_png(Path(path), picture(self.labels, self.label_space, format, self.image))


class Model:
    """A network with its header, ready to predict. `network`, `header`, `label_space` and `predictor` are public.

    Predictions are those of the network as it was loaded: if its weights are changed, they need a new `Predictor`.
    """

    def __init__(self, path: Path, predictor: Predictor, header: ModelHeader) -> None:
        self.path, self.predictor, self.header = path, predictor, header
        self.network = predictor.network
        self.label_space = header.space

    def predict(self, image: Path | str | NDArray[np.uint8] | Image.Image) -> Prediction:
        """Labels and probabilities of an image file, a uint8 RGB array (H, W, 3) or a Pillow image, at its own size.

        Raises SegadaptError for a file that is no image, ValueError for another kind of array.
        """
        if isinstance(image, (str, Path)):
            image = read_rgb(Path(image))
        pixels = np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image
        probabilities = self.predictor.probabilities(pixels)
        labels = torch.from_numpy(probabilities).max(dim=0).indices.to(torch.uint8).numpy()
        return Prediction(pixels, labels, probabilities, self.label_space)


def load(
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    size: tuple[int, int] | None = None,
    scales: Sequence[float] = (1.0,),
    mirror: bool = False,
    window: tuple[int, int] | None = None,
    precision: Precision = "fp32",
) -> Model:
    """A model of a run folder, a stage folder, a `model.safetensors` or a published checkpoint (`.pth`).

    A run means its last stage with a model that is not the upper bound (`target_trained`). `size` (W, H) is the one
    that the model says by default; for the other options see `Predictor`. Raises UsageError for a path without a model.
    """
    file = find_model(Path(path))
    saved = load_any(file)
    predictor = Predictor(
        saved.network,
        size or saved.header.size,
        scales=scales,
        mirror=mirror,
        window=window,
        device=device,
        precision=precision,
    )
    return Model(file, predictor, saved.header)


def find_model(path: Path) -> Path:
    """The one model file that `path` means, see `load`. Raises UsageError when there is none."""
    models = find_models(path)
    if len(models) == 1:
        return models[0]
    methods = stage_methods(path)
    return next((file for file in reversed(models) if methods.get(file.parent.name) != UPPER_BOUND), models[-1])


def find_models(path: Path) -> list[Path]:
    """The segmenters of a run folder in the order of its stages; the model of a stage folder; or the file itself.

    Raises UsageError when there is none.
    """
    path = user_path(path)
    if is_file(path):
        return [path]
    if is_file(path / MODEL):
        return [path / MODEL]
    if not is_folder(path):
        raise UsageError(
            "the model is not there", where=path, remedy="Give a run folder, a stage folder or a checkpoint file."
        )
    methods = stage_methods(path)
    found = [file for file in sorted(path.glob(f"*/{MODEL}")) if methods.get(file.parent.name) != STYLE]
    order = list(methods)
    found.sort(key=lambda file: order.index(file.parent.name) if file.parent.name in order else len(order))
    if not found:
        raise UsageError(
            f"holds no {MODEL}, nor does a stage in it", where=path, remedy="Give a run folder with a finished stage."
        )
    return found


def find_generator(path: Path) -> Path:
    """The generator file that `path` means: a file, the one of a stage folder, or the last one of a run.

    Raises UsageError when there is none.
    """
    path = user_path(path)
    if is_file(path):
        return path
    stages = [path, *(path / name for name, method in reversed(stage_methods(path).items()) if method == STYLE)]
    found = next((stage / MODEL for stage in stages if is_file(stage / MODEL)), None)
    if found is None:
        raise UsageError(
            "holds no generator" if is_folder(path) else "the generator is not there",
            where=path,
            remedy="Give a run folder with a finished style stage, such a stage's folder, or a generator's file.",
        )
    return found


def stage_methods(run: Path) -> dict[str, str]:
    """Stage name -> method in the order of the run's recipe; empty when the folder has no readable recipe."""
    try:
        stages = read_yaml(run / RECIPE, "the recipe")["stages"]
        return {str(name): str(stage["method"]) for name, stage in stages.items()}
    except (UsageError, KeyError, TypeError, AttributeError):
        return {}

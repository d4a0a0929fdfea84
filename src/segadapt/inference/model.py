"""A trained model in Python: `segadapt.load(path).predict("street.jpg")`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segadapt.data.label_spaces import LabelSpace
from segadapt.devices import Precision, choose_device, choose_precision
from segadapt.errors import UsageError
from segadapt.files import is_file, is_folder, user_path
from segadapt.inference.formats import OPACITY, Format, overlay, parse_formats, picture, save_picture
from segadapt.inference.pixels import AnyImage, is_one, rgb_pixels
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import batches_of
from segadapt.methods.registry import METHODS
from segadapt.plain_data import read_yaml
from segadapt.plugin_loading import load_installed
from segadapt.weights.hub import hub_model, is_hub
from segadapt.weights.provenance import is_generator
from segadapt.weights.saved import ModelHeader, load_any

MODEL = "model.safetensors"
"""The selected model in a stage's folder."""
RECIPE = "recipe.yaml"
NUMBER = (int, float, np.number)


@dataclass(frozen=True)
class LabelledImage:
    """The class that a model gives each pixel of an image, or of a video's frame, at its own size."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    labels: NDArray[np.uint8]  # (H, W) train ids
    label_space: LabelSpace

    def overlay(self, opacity: float = OPACITY) -> Image.Image:
        """The image with the colours of the predicted classes overlaid."""
        return overlay(self.image, self.labels, self.label_space, opacity)

    def save(self, path: Path | str, format: Format = "colour") -> None:
        """Write the prediction as an image: `train_id`, `label_id` (Cityscapes), `colour` or `overlay`.

        The suffix sets the file format; labels need a lossless one (.png, .tif, .bmp), an overlay may
        be .jpg or .webp. Raises UsageError for another format or suffix, and for what is not a regular file.
        """
        (form,) = parse_formats(format, "format")[:1]
        save_picture(Path(path), picture(self.labels, self.label_space, form, self.image), lossless=form != "overlay")


@dataclass(frozen=True)
class Prediction(LabelledImage):
    """A model's prediction for one image, at the image's own size: its labels, and how likely each class is."""

    probabilities: NDArray[np.float32]  # (C, H, W), sum 1 over the classes


class Model:
    """A network with its header, ready to predict. `network`, `header`, `label_space` and `predictor` are public.

    Predictions use the network as it was loaded: after changing its weights, create a new `Predictor`.
    """

    def __init__(self, path: Path, predictor: Predictor, header: ModelHeader) -> None:
        self.path, self.predictor, self.header = path, predictor, header
        self.network = predictor.network
        self.label_space = header.space

    @overload
    def predict(self, image: AnyImage, *, batch: int | None = None) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, image: Sequence[AnyImage], *, batch: int | None = None) -> list[Prediction]: ...
    def predict(
        self, image: AnyImage | Sequence[AnyImage], *, batch: int | None = None
    ) -> Prediction | list[Prediction]:
        """Labels and probabilities of an image at its own size, or of each image of a list, in order.

        An image is a file's path, a Pillow image, an RGB array (H, W, 3) or an RGB tensor (3, H, W) on any device, of
        uint8, 0 … 255, or of floating-point numbers, 0 … 1. A batch is `list(batch)`. Images of a list pass through the
        network in batches of `batch` (None: up to four on a GPU; one on a CPU, where larger ones are no faster). All
        results of a list are held in memory: C · H · W · 4 bytes each.

        Raises UsageError for an image of another kind, SegadaptError for a file that is not an image.
        """
        if is_one(image):
            return self._predictions([image])[0]
        if batch is not None and batch < 1:
            raise UsageError(f"{batch} is not a batch size", where="batch", remedy="Give 1 or more.")
        batches = batches_of(list(cast(Sequence[AnyImage], image)), self.predictor.at_once(batch))
        return [found for images in batches for found in self._predictions(images)]

    def _predictions(self, images: Sequence[AnyImage]) -> list[Prediction]:
        pixels = [rgb_pixels(image) for image in images]
        found = []
        for image, probabilities in zip(pixels, self.predictor.batch_probabilities(pixels), strict=True):
            labels = torch.from_numpy(probabilities).max(dim=0).indices.to(torch.uint8).numpy()
            found.append(Prediction(image, labels, self.label_space, probabilities))
        return found


def load(
    path: Path | str,
    *,
    device: torch.device | str = "auto",
    size: tuple[int, int] | None = None,
    scales: float | Sequence[float] = (1.0,),
    mirror: bool = False,
    window: tuple[int, int] | None = None,
    precision: Precision | Literal["auto"] = "fp32",
) -> Model:
    """Load the model of a run or stage folder, a `model.safetensors`, a published checkpoint (`.pth`) or the hub.

    On the Hugging Face hub: `hf://USER/NAME`, or `hf://USER/NAME@REVISION`. For a run this is its last stage with a
    model that is not an upper bound (one whose method sees target labels).

    `device` "auto" is a GPU if there is one; `precision` "auto" is bf16 where that is fast. `size` (W, H) defaults to
    the model's own; `scales` is a number or several; for the other options see `Predictor`. Raises
    UsageError for a path without a model, for a device that does not exist, and for invalid options.
    """
    load_installed()
    place = choose_device(str(device))
    chosen = choose_precision(precision, place)
    file = find_model(Path(path))
    saved = load_any(file)
    try:
        predictor = Predictor(
            saved.network,
            size or saved.header.size,
            scales=_scales(scales),
            mirror=mirror,
            window=window,
            device=place,
            precision=chosen,
        )
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error), where="load", remedy="Change the option.") from error
    return Model(file, predictor, saved.header)


def _scales(given: float | Sequence[float]) -> list[float]:
    """One number is one scale. Raises UsageError for anything but numbers."""
    scales = [given] if isinstance(given, NUMBER) else list(given) if isinstance(given, Iterable) else None
    if scales is None or not all(isinstance(scale, NUMBER) and not isinstance(scale, bool) for scale in scales):
        raise UsageError(
            f"{given!r} is not a list of scales", where="scales", remedy="Give a number or several: (1, 0.75)."
        )
    return [float(scale) for scale in scales]


def find_model(path: Path) -> Path:
    """The one model file that `path` means, see `load`. Raises UsageError when there is none."""
    if is_hub(path):
        return hub_model(path)
    models = find_models(path)
    if len(models) == 1:
        return models[0]
    methods = stage_methods(path)
    return next((file for file in reversed(models) if not _is_bound(methods.get(file.parent.name))), models[-1])


def find_models(path: Path) -> list[Path]:
    """The segmenters of a run folder in the order of its stages; the model of a stage folder; or the file itself.

    `hf://USER/NAME` is the model of a repository on the hub. Raises UsageError when there is none, SegadaptError when
    the hub does not give it.
    """
    if is_hub(path):
        return [hub_model(path)]
    path = user_path(path)
    if is_file(path):
        return [path]
    if is_file(path / MODEL):
        return [path / MODEL]
    if not is_folder(path):
        raise UsageError(
            "the model does not exist", where=path, remedy="Give a run folder, a stage folder or a checkpoint file."
        )
    methods = stage_methods(path)
    found = [file for file in sorted(path.glob(f"*/{MODEL}")) if not is_generator(file)]
    order = list(methods)
    found.sort(key=lambda file: order.index(file.parent.name) if file.parent.name in order else len(order))
    if not found:
        raise UsageError(
            f"holds no {MODEL}, and neither does any stage in it",
            where=path,
            remedy="Give a run folder with a finished stage.",
        )
    return found


def find_generator(path: Path) -> Path:
    """The generator file that `path` means: a file, the one of a stage folder, or the last one of a run.

    Raises UsageError when there is none.
    """
    path = user_path(path)
    if is_file(path):
        return path
    if is_file(path / MODEL):
        return path / MODEL
    models = [path / name / MODEL for name in reversed(stage_methods(path))]
    found = next((model for model in models if is_file(model) and is_generator(model)), None)
    if found is None:
        raise UsageError(
            "holds no generator" if is_folder(path) else "the generator does not exist",
            where=path,
            remedy="Give a run folder with a finished style stage, such a stage's folder, or a generator's file.",
        )
    return found


def _is_bound(method: str | None) -> bool:
    """Whether a method is not an answer to the task but its upper bound: it sees labels of the target."""
    return method in METHODS and METHODS[method].uses_target_labels


def stage_methods(run: Path) -> dict[str, str]:
    """Stage name -> method in the order of the run's recipe; empty when the folder has no readable recipe."""
    try:
        stages = read_yaml(run / RECIPE, "the recipe")["stages"]
        return {str(name): str(stage["method"]) for name, stage in stages.items()}
    except (UsageError, KeyError, TypeError, AttributeError):
        return {}

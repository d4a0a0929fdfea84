"""The model card of a trained model, README.md of its repository on the hub: only what the run's own files contain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segadapt.errors import UsageError
from segadapt.export.onnx_metadata import SAID
from segadapt.files import is_file, sha256
from segadapt.inference.model import RECIPE
from segadapt.plain_data import Json, read_json, read_yaml
from segadapt.version import __version__
from segadapt.weights.saved import ModelHeader

LEFT_OPEN = "???"
"""Stands in for a path in a recipe, to be filled in by whoever runs it."""


@dataclass(frozen=True)
class Facts:
    """What is known about a model: its header, and the files in its stage's and run's folders."""

    file: Path
    header: ModelHeader
    evaluation: Json  # evaluation.json; empty where there is none
    recipe: Json  # recipe.yaml without paths
    environment: Json

    @classmethod
    def of(cls, file: Path, header: ModelHeader) -> "Facts":
        """From a model file; neighbouring files that cannot be read are left out."""
        run = file.parent.parent
        recipe = _without_paths(_read(run / RECIPE)) if header.stage is not None else {}
        return cls(file, header, _read(file.parent / "evaluation.json"), recipe, _read(run / "environment.json"))

    @property
    def domains(self) -> dict[str, Json]:
        """Domain -> the scores of this file."""
        if self.evaluation.get("model_sha256") != sha256(self.file):
            return {}
        found = self.evaluation.get("domains")
        return {str(name): dict(scores) for name, scores in found.items()} if isinstance(found, Mapping) else {}


def _read(path: Path) -> Json:
    """Plain data of a file; empty if it is missing or unreadable."""
    if not is_file(path):
        return {}
    try:
        content = read_yaml(path, "the recipe") if path.suffix == ".yaml" else read_json(path, "the record")
    except UsageError:
        return {}
    return dict(content) if isinstance(content, Mapping) else {}


def _without_paths(content: Any) -> Any:
    """The same data with `???` for every absolute path, which is private."""
    if isinstance(content, Mapping):
        return {str(key): _without_paths(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_paths(value) for value in content]
    return LEFT_OPEN if isinstance(content, str) and Path(content).is_absolute() else content


def model_card(facts: Facts, repository: str, license_id: str | None = None) -> str:
    """README.md: front matter for the hub (results too), then how to use it, data, results, recipe, provenance, terms.

    `repository` is USER/NAME; `license_id` an identifier of the hub (cc-by-4.0), None: the terms of the data apply.
    """
    header, space = facts.header, facts.header.space
    method = header.method or "a published program"
    front = yaml.safe_dump(_front(facts, repository, license_id), sort_keys=False, allow_unicode=True)
    said = {
        "Network": f"{header.network}{_options(header.options)}" + (", with attention" if header.attention else ""),
        "Input": f"RGB, resized to {header.size[0]}×{header.size[1]}; labels have the image's own size",
        "Classes": f"{len(space)} ({space.name}): {', '.join(space.classes)}",
        "Method": method,
        "Updates": "not known" if header.step is None else str(header.step),
        "Kept because": {"last": "it is the last", "best_target": "of its score on target labels"}.get(
            str(header.selection), "of a criterion without labels" if header.selection else "not known"
        ),
        "Target labels used": SAID[header.used_target_labels],
        "Made with": f"segadapt {facts.environment.get('segadapt', __version__)}, "
        f"PyTorch {facts.environment.get('torch', '?')}",
        "SHA-256": f"`{sha256(facts.file)}`",
    }
    parts = [
        f"---\n{front}---\n",
        f"# {repository.partition('/')[2]}\n",
        f"A network for semantic segmentation, trained by {method} with segadapt.\n",
        f'```python\nimport segadapt\n\nmodel = segadapt.load("hf://{repository}")\n'
        'model.predict("street.jpg").overlay().save("overlay.png")\n```\n',
        "## What it is\n",
        _table(("", ""), said.items()),
        "## Data\n",
        _data(facts.recipe),
        "## Results\n",
        _results(facts.domains, space.classes),
        _recipe(facts.recipe),
        "## Licence\n",
        _licence(license_id),
    ]
    return "\n".join(part for part in parts if part)


def _front(facts: Facts, repository: str, license_id: str | None) -> dict[str, Any]:
    tags = ["semantic-segmentation", "domain-adaptation", facts.header.network, facts.header.method]
    front: dict[str, Any] = {
        "library_name": "segadapt",
        "pipeline_tag": "image-segmentation",
        "tags": [tag for tag in dict.fromkeys(tags) if tag],
        "license": license_id or "other",
    }
    results = [
        {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": f"{scores.get('layout')} {scores.get('split')} ({name})", "type": scores.get("layout")},
            "metrics": [{"type": "mean_iou", "name": "mIoU in percent", "value": round(scores["miou"], 2)}],
        }
        for name, scores in facts.domains.items()
        if isinstance(scores.get("miou"), float)
    ]
    if results:
        front["model-index"] = [{"name": repository.partition("/")[2], "results": results}]
    return front


def _options(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key}: {value}' for key, value in options.items())})" if options else ""


def _table(titles: Sequence[str], rows: Any) -> str:
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return (
        "\n".join([*lines, *(f"| {' | '.join(str(cell).replace('|', '∣') for cell in row)} |" for row in rows)]) + "\n"
    )


def _data(recipe: Json) -> str:
    data = recipe.get("data")
    if not isinstance(data, Mapping):
        return "The file does not say what it was trained on.\n"
    rows = []
    for side, given in data.items():
        domains = given if isinstance(given, Mapping) and "layout" not in given else {"": given}
        for name, domain in domains.items():
            if isinstance(domain, Mapping):
                rows.append((f"{side} {name}".strip(), domain.get("layout"), domain.get("encoding") or "the layout's"))
    return _table(("domain", "layout", "encoding of labels"), rows)


def _results(domains: Mapping[str, Json], classes: Sequence[str]) -> str:
    if not domains:
        return "It has not been scored.\n"
    found = list(domains.values())

    def percent(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) else "–"

    rows = [("**mIoU**", *(percent(scores.get("miou")) for scores in found))]
    rows += [(name, *(percent(dict(scores.get("per_class") or {}).get(name)) for scores in found)) for name in classes]
    heads = [f"{name} {scores.get('split')}, {scores.get('images')} images" for name, scores in domains.items()]
    return _table(("IoU in percent", *heads), rows)


def _recipe(recipe: Json) -> str:
    if not recipe:
        return ""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    return f"## Recipe\n\n`recipe.yaml`, with every setting; `{LEFT_OPEN}` stands for a path of your own.\n\n" + (
        f"<details><summary>all settings</summary>\n\n```yaml\n{text}```\n\n</details>\n"
    )


def _licence(license_id: str | None) -> str:
    inherited = (
        "A trained model inherits the terms of the data and of the initial weights that it was trained with; one that "
        "was trained on GTA5, SYNTHIA or Cityscapes is for research only."
    )
    if license_id is None:
        return f"{inherited} Its author has named no licence beside these terms.\n"
    return f"Its author gives it under `{license_id}`. {inherited}\n"

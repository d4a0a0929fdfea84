"""Push a trained model to a repository on the Hugging Face hub, with its card and the records of its run."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from segadapt.errors import UsageError
from segadapt.export.model_card import Facts, model_card
from segadapt.files import exists, write_bytes, write_json, write_text
from segadapt.inference.model import MODEL, RECIPE, find_model
from segadapt.weights.hub import Repository, endpoint, told
from segadapt.weights.saved import load_model

CARD = "README.md"


@dataclass(frozen=True)
class Pushed:
    """Where a model was pushed."""

    repository: Repository  # with the commit as its revision
    url: str


def write_folder(model: Path, repository: Repository, folder: Path, license_id: str | None = None) -> list[Path]:
    """What `push` puts into a repository, as files in `folder`, which is new or empty.

    model.safetensors, README.md (the card), and for a run evaluation.json and recipe.yaml; absolute paths are removed
    from all of them. Raises UsageError for a path without a segadapt model, or for a folder that is not empty.
    """
    file = find_model(model)
    saved = load_model(file)
    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("already exists", where=folder, remedy="Give a new folder, or an empty one.")
    facts = Facts.of(file, saved.header)
    write_bytes(folder / MODEL, file.read_bytes())
    write_text(folder / CARD, model_card(facts, repository.name, license_id))
    if facts.domains:
        scores = {name: {**of, "root": "", "list": None} for name, of in facts.domains.items()}
        write_json(folder / "evaluation.json", {**facts.evaluation, "domains": scores})
    if facts.recipe:
        write_text(folder / RECIPE, yaml.safe_dump(facts.recipe, sort_keys=False, allow_unicode=True))
    return sorted(folder.iterdir())


def push(
    model: Path,
    repository: Repository,
    *,
    private: bool = False,
    message: str = "A model of segadapt",
    license_id: str | None = None,
    others: Sequence[Path] = (),
) -> Pushed:
    """Push a model to a repository as one commit; the repository is created if needed.

    `others` are files that go with it, such as an exported .onnx. The token is the one that huggingface_hub finds:
    `HF_TOKEN`, or `hf auth login`. Raises UsageError as `write_folder`, SegadaptError when the hub refuses it.
    """
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "repository"
        write_folder(model, repository, folder, license_id)
        for other in others:
            write_bytes(folder / other.name, other.read_bytes())
        with told(repository):
            api = HfApi(endpoint=endpoint(), library_name="segadapt")
            api.create_repo(repository.name, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repository.name,
                folder_path=folder,
                commit_message=message,
                revision=repository.revision,
            )
    return Pushed(Repository(repository.name, done.oid), str(done.commit_url))

"""Files of weights: every form is read and recognised, nothing in them runs, and bad ones are refused in one line."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recorded import hollow
from segadapt.errors import SegadaptError, UsageError
from segadapt.weights.checkpoint_files import identify

State = dict[str, Tensor]

FORMS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "under state_dict": lambda state: {"epoch": 3, "state_dict": state, "best": 0.34},
    "data parallel": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "data parallel under model": lambda state: {"model": {f"module.{name}": t for name, t in state.items()}},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_published_files_are_recognised_in_every_form(form: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(FORMS[form](hollow("sean")), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert str(identify(tmp_path / "a.pth")) == "a published DeepLab VGG-16 checkpoint with 19 classes and attention"


class Dangerous:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("ran",)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def saved(content: object, tmp_path: Path, zipped: bool = True) -> bytes:
    torch.save(content, tmp_path / "whole", _use_new_zipfile_serialization=zipped)
    return (tmp_path / "whole").read_bytes()


def saved_safely(tmp_path: Path) -> bytes:
    save_file({"a": torch.zeros(1000)}, tmp_path / "whole")
    return (tmp_path / "whole").read_bytes()


BAD_FILES: dict[str, tuple[Callable[[Path], bytes], int, str]] = {
    "cut short": (lambda tmp: cut(saved({"a": torch.zeros(1000)}, tmp)), 1, "is damaged or incomplete"),
    "cut short, old": (lambda tmp: cut(saved({"a": torch.zeros(1000)}, tmp, False)), 1, "is damaged or incomplete"),
    "cut short, safetensors": (lambda tmp: cut(saved_safely(tmp)), 1, "is damaged or incomplete"),
    "header cut short": (lambda tmp: saved_safely(tmp)[:20], 1, "is damaged or incomplete"),
    "empty": (lambda tmp: b"", 1, "is damaged or incomplete"),
    "a page": (lambda tmp: b"<!doctype html><title>404</title>", 2, "is not a file of weights"),
    "a pickle": (lambda tmp: pickle.dumps({"a": 1}), 2, "is not a file of weights"),
    "code": (lambda tmp: saved({"a": Dangerous()}, tmp), 2, "holds Python objects (posix.mkdir)"),
    "code, old": (lambda tmp: saved({"a": Dangerous()}, tmp, False), 2, "holds Python objects (posix.mkdir)"),
    "a module": (lambda tmp: saved(nn.Linear(1, 1), tmp), 2, "holds Python objects (torch.nn.modules.linear.Linear)"),
    "no weights": (lambda tmp: saved([1, 2], tmp), 2, "holds no weights"),
    "no tensors": (lambda tmp: saved({"state_dict": {}}, tmp), 2, "holds no weights"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
@pytest.mark.filterwarnings("error")
def test_files_that_are_none_are_refused(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, exit_code, words = BAD_FILES[bad]
    path = tmp_path / "bad.pth"
    path.write_bytes(make(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SegadaptError) as caught:
        identify(path)
    text = str(caught.value)
    assert caught.value.exit_code == exit_code
    assert text.startswith(f"{path}: {words}") and text.endswith(caught.value.remedy) and "\n" not in text
    assert not (tmp_path / "ran").exists()


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the checkpoint is not a file"):
        identify(tmp_path)

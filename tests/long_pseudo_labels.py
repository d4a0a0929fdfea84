"""The recorded pseudo-labels at full size: three images, eight views each of ResNet-101 (about seven core-minutes).

Not part of `make test`, whose tests of the same rules are smaller; `make long-test` runs it.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command import command
from recorded import deeplab_multi_start, pseudo_labels, write_micro


def test_the_recorded_pseudo_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_micro(tmp_path / "micro")
    torch.save(deeplab_multi_start(), tmp_path / "deeplab_multi_19.pth")
    images, out = tmp_path / "micro/Cityscapes/leftImg8bit/train", tmp_path / "out"
    told = command(capsys, "pseudo-label", tmp_path / "deeplab_multi_19.pth", images, "-o", out, "--official")
    assert told.code == 0, told.err
    recorded = pseudo_labels()
    assert len(recorded) == 3
    for name, expected in recorded.items():
        found = np.asarray(Image.open(out / "labels/aa" / f"{name}.png"))
        assert (found == expected).mean() >= 0.999

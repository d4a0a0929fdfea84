"""The stored numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent


def trace(name: str) -> dict[str, Any]:
    """`sean_gta5`, `sean_gta5_threshold05` or `pretrain_vgg_gta5`: setting, losses per step, weights after the last.

    `weights_after_last_step` has `student_net` and, for SEAN, `teacher_net`: published name -> {"sum", "norm"}.
    SEAN's `consistency` is the weighted term (0.3 · MSE).
    """
    recorded: dict[str, Any] = json.loads((HERE / "traces" / f"{name}.json").read_text())
    return recorded


def forward() -> dict[str, NDArray[np.float32]]:
    """`sean.attention` (2, 1, 8, 16), `sean.logits` and `vgg_base.logits` (2, 19, 8, 16), of networks in eval mode."""
    with np.load(HERE / "forward.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def parameters(network: str) -> dict[str, tuple[int, ...]]:
    """Published names -> shapes, in the published order.

    Networks: `sean`, `vgg_base`, `deeplab_multi` (ResNet-101, two heads), `transformer_net`, `discriminator` (of
    softmax maps), `discriminator3` (of images).
    """
    recorded = json.loads((HERE / "parameters.json").read_text())
    return {name: tuple(shape) for name, shape in recorded[network].items()}

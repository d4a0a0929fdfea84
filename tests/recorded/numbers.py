"""The stored numbers."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).parent


def trace(name: str) -> dict[str, Any]:
    """Setting, losses per step, weights after the last.

    `sean_gta5`, `sean_gta5_threshold05`, `pretrain_vgg_gta5`, `tgstn_gta5`, `se_gan_gta5` or `self_training_gta5`.
    `weights_after_last_step`: network of the program -> published name -> {"sum", "norm"}. Networks are `student_net`
    and, for SEAN and SE-GAN, `teacher_net`; `D_net1` and `D_net2` (SE-GAN); `trans_net` and `D_net` (TGSTN);
    `selftrain_net`. Terms are recorded unweighted, but for SEAN's `consistency` (0.3 · MSE).
    """
    path = HERE / "traces" / f"{name}.json"
    text = path.read_text() if path.exists() else gzip.decompress(path.with_suffix(".json.gz").read_bytes()).decode()
    recorded: dict[str, Any] = json.loads(text)
    return recorded


def stylized() -> dict[str, NDArray[np.uint8]]:
    """Name -> RGB (360, 480, 3): the images of GTA5 through `transformer_net_start` at 128×64, at their own size."""
    return _pictures("stylized_gta5", "")


def pseudo_labels() -> dict[str, NDArray[np.uint8]]:
    """Image name without suffix -> train ids (512, 1024) of the Cityscapes train images, by `deeplab_multi_start`.

    Input 1024×512; four scales, mirrored, 1.5 in quadrants. Self-training's trace has learnt from them.
    """
    return _pictures("pseudo_labels_gta5", "_PseudoLabel")


def _pictures(folder: str, ending: str) -> dict[str, NDArray[np.uint8]]:
    paths = sorted((HERE / "pictures" / folder).glob("*.png"))
    return {path.stem.removesuffix(ending): np.asarray(Image.open(path)) for path in paths}


def forward() -> dict[str, NDArray[np.float32]]:
    """Outputs of the networks in eval mode, for `forward_input()`.

    `sean.attention` (2, 1, 8, 16), `sean.logits` and `vgg_base.logits` (2, 19, 8, 16); `deeplab_multi.auxiliary` and
    `deeplab_multi.main` (2, 19, 9, 17); `transformer_net.pixels` (2, 3, 64, 128); `discriminator.map` (2, 1, 2, 4), for
    the softmax of `tensor("input.logits", (2, 19, 64, 128))`. Weights: `state(network)`, but with the prefix `S.1.` for
    `sean` and `D.1.` for `discriminator`.
    """
    with np.load(HERE / "forward.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def parameters(network: str) -> dict[str, tuple[int, ...]]:
    """Published names -> shapes, in the published order.

    Networks: `sean`, `vgg_base`, `deeplab_multi` (ResNet-101, two heads), `transformer_net`, `discriminator` (of
    softmax maps), `discriminator3` (of images).
    """
    recorded = json.loads((HERE / "parameters.json").read_text())
    return {name: tuple(shape) for name, shape in recorded[network].items()}

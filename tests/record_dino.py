"""What transformers gives for tiny DINOv2 and DINOv3 whose weights follow from their names: recorded/dino.npz.

PYTHONPATH=src:tests python tests/record_dino.py      # with transformers 5 installed
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recorded.weights import tensor
from segadapt.models import vit
from segadapt.models.dino import Dino
from segadapt.models.networks import build
from segadapt.weights.published import encoder_state

RECORDED = Path(__file__).parent / "recorded" / "dino.npz"
TINY = vit.Size(32, 3, 2)
KINDS: list[dict[str, Any]] = [{"name": "dinov2"}, {"name": "dinov2", "registers": True}, {"name": "dinov3"}]
ROWS, COLUMNS = 3, 5


def weighed(choice: dict[str, Any]) -> Dino:
    """The network; every weight is far from what would make it count for nothing."""
    network = build(choice, classes=2).eval()
    assert isinstance(network, Dino)
    with torch.no_grad():
        for name, parameter in network.backbone.named_parameters():
            values = tensor(f"{choice['name']}/{name}", tuple(parameter.shape))
            parameter.copy_(10 * values if parameter.ndim == 1 and not name.endswith("weight") else values)
    return network


def pixels(network: Dino) -> Tensor:
    """(2, 3, H, W) of 3 × 5 patches, about standard normal."""
    patch = network.backbone.kind.patch
    return 3000 * tensor("pixels", (2, 3, ROWS * patch, COLUMNS * patch))


def masks(network: Dino) -> dict[str, Tensor | None]:
    """All patches are shown; some are hidden."""
    return {"shown": None, "hidden": tensor("hidden", (2, ROWS, COLUMNS)) > 0}


def theirs(choice: dict[str, Any], network: Dino) -> Any:
    """transformers' network with the same weights, by way of a file."""
    import transformers
    from safetensors.torch import save_file

    shape = {"hidden_size": TINY.width, "num_hidden_layers": TINY.depth, "num_attention_heads": TINY.heads}
    if choice["name"] == "dinov3":
        kind: Any = transformers.DINOv3ViTModel
        config: Any = transformers.DINOv3ViTConfig(
            **shape, intermediate_size=4 * TINY.width, num_register_tokens=4, patch_size=16
        )
    elif choice.get("registers"):
        kind = transformers.Dinov2WithRegistersModel
        config = transformers.Dinov2WithRegistersConfig(**shape, image_size=518, patch_size=14)
    else:
        kind = transformers.Dinov2Model
        config = transformers.Dinov2Config(**shape, image_size=518, patch_size=14)
    with tempfile.TemporaryDirectory() as folder:
        state = {name: value.contiguous() for name, value in encoder_state(network, choice["name"] + "_hub").items()}
        save_file(state, f"{folder}/model.safetensors", {"format": "pt"})
        config.save_pretrained(folder)
        model, found = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values()), found
    return model.eval()


@torch.no_grad()
def record() -> None:
    """Write the file."""
    vit.SIZES.update(dict.fromkeys(vit.SIZES, TINY))
    content = {}
    for choice in KINDS:
        network = weighed(choice)
        name = choice["name"] + ("_registers" if "registers" in choice else "")
        model = theirs(choice, network)
        for key, hidden in masks(network).items():
            mask = None if hidden is None else hidden.flatten(1)
            tokens = model(pixels(network), bool_masked_pos=mask).last_hidden_state
            content[f"{name}/{key}"] = tokens[:, network.backbone.before_patches :].numpy()
    np.savez_compressed(RECORDED, **content)


if __name__ == "__main__":
    record()

"""Files for DINOv2 and DINOv3: those of their authors (facebookresearch), and those of the Hugging Face hub.

The names are those of the largest encoder; a smaller one has fewer of them. Decoder and classifier stay fresh.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from segadapt.models.segmenter import IMAGENET
from segadapt.models.vit import SIZES
from segadapt.weights.key_map import KeyMap
from segadapt.weights.origin import Origin

BLOCKS = max(size.depth for size in SIZES.values())
_BLOCK = ("norm1", "attn.qkv", "attn.proj", "ls1", "norm2", "mlp.fc1", "mlp.fc2", "ls2")


def _blocks(theirs: str, names: KeyMap) -> KeyMap:
    """The map of all blocks, from that of one."""
    return {
        f"{theirs}.{block}.{own}": f"backbone.blocks.{block}.{ours}"
        for block in range(BLOCKS)
        for own, ours in names.items()
    }


_PUBLISHED_BLOCKS = _blocks("blocks", dict(zip(_BLOCK, _BLOCK, strict=True)))
DINOV2: KeyMap = {
    "cls_token": "backbone.cls_token",
    "pos_embed": "backbone.pos_embed",
    "register_tokens": "backbone.register_tokens",
    "mask_token": "backbone.mask_token",
    "patch_embed.proj": "backbone.patch_embed.proj",
    **_PUBLISHED_BLOCKS,
    "norm": "backbone.norm",
}
DINOV3: KeyMap = {
    "cls_token": "backbone.cls_token",
    "storage_tokens": "backbone.register_tokens",
    "mask_token": "backbone.mask_token",
    "patch_embed.proj": "backbone.patch_embed.proj",
    **_PUBLISHED_BLOCKS,
    "norm": "backbone.norm",
}
HUB_DINOV2: KeyMap = {
    "embeddings.cls_token": "backbone.cls_token",
    "embeddings.position_embeddings": "backbone.pos_embed",
    "embeddings.register_tokens": "backbone.register_tokens",
    "embeddings.mask_token": "backbone.mask_token",
    "embeddings.patch_embeddings.projection": "backbone.patch_embed.proj",
    **_blocks(
        "encoder.layer",
        {
            "norm1": "norm1",
            **{f"attention.attention.{part}": "attn.qkv" for part in ("query", "key", "value")},
            "attention.output.dense": "attn.proj",
            "layer_scale1.lambda1": "ls1.gamma",
            "norm2": "norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
            "layer_scale2.lambda1": "ls2.gamma",
        },
    ),
    "layernorm": "backbone.norm",
}
HUB_DINOV3: KeyMap = {
    "embeddings.cls_token": "backbone.cls_token",
    "embeddings.register_tokens": "backbone.register_tokens",
    "embeddings.mask_token": "backbone.mask_token",
    "embeddings.patch_embeddings": "backbone.patch_embed.proj",
    **_blocks(
        "layer",
        {
            "norm1": "norm1",
            **{f"attention.{part}_proj": "attn.qkv" for part in "qkv"},
            "attention.o_proj": "attn.proj",
            "layer_scale1.lambda1": "ls1.gamma",
            "norm2": "norm2",
            "mlp.up_proj": "mlp.fc1",
            "mlp.down_proj": "mlp.fc2",
            "layer_scale2.lambda1": "ls2.gamma",
        },
    ),
    "norm": "backbone.norm",
}
Tensors = Mapping[str, Tensor]
_MASK_TOKEN, _QKV_BIAS = "embeddings.mask_token", "attn.qkv.bias"


def _read_dinov3(tensors: Tensors) -> dict[str, Tensor]:
    """Without the masks that make keys have no bias: ours have none."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias_mask")}


def _write_dinov3(tensors: Tensors) -> dict[str, Tensor]:
    """With these masks."""
    found = dict(tensors)
    for name, bias in tensors.items():
        if name.endswith(_QKV_BIAS):
            mask = torch.ones_like(bias)
            mask.view(3, -1)[1] = 0
            found[f"{name}_mask"] = mask
    return found


def _read_hub_dinov3(tensors: Tensors) -> dict[str, Tensor]:
    """With the bias of keys, which such a file does not name: zeros."""
    found = dict(tensors)
    for name, bias in tensors.items():
        if name.endswith(".q_proj.bias"):
            found.setdefault(name.replace(".q_proj.", ".k_proj."), torch.zeros_like(bias))
        elif name == _MASK_TOKEN:
            found[name] = bias.flatten(0, -2)  # (1, 1, C) there
    return found


def _write_hub_dinov3(tensors: Tensors) -> dict[str, Tensor]:
    """Without it."""
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(".k_proj.bias")}
    return {**found, _MASK_TOKEN: found[_MASK_TOKEN][None]}


DINOV2_ORIGINS = (
    Origin(
        "dinov2",
        "a published DINOv2 file",
        signature=("pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma"),
        keys=DINOV2,
        pixels=IMAGENET,
        body=DINOV2,
    ),
    Origin(
        "dinov2_hub",
        "a DINOv2 file of the Hugging Face hub",
        signature=("embeddings.position_embeddings", "encoder.layer.0.layer_scale1.lambda1"),
        keys=HUB_DINOV2,
        pixels=IMAGENET,
        body=HUB_DINOV2,
        skipped=("classifier.",),
    ),
)
DINOV3_ORIGINS = (
    Origin(
        "dinov3",
        "a published DINOv3 file",
        signature=("storage_tokens", "patch_embed.proj.weight", "blocks.0.ls1.gamma"),
        keys=DINOV3,
        pixels=IMAGENET,
        body=DINOV3,
        skipped=("rope_embed.",),
        read=_read_dinov3,
        write=_write_dinov3,
    ),
    Origin(
        "dinov3_hub",
        "a DINOv3 file of the Hugging Face hub",
        signature=("embeddings.register_tokens", "layer.0.layer_scale1.lambda1", "layer.0.mlp.up_proj.weight"),
        keys=HUB_DINOV3,
        pixels=IMAGENET,
        body=HUB_DINOV3,
        read=_read_hub_dinov3,
        write=_write_hub_dinov3,
    ),
)

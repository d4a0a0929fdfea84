"""Files for SegFormer and HRDA: ImageNet weights of MiT, and the checkpoints of DAFormer, HRDA and MIC.

The names are those of the largest encoder; a smaller one has fewer of them.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segadapt.models.hrda import PREFIX
from segadapt.models.mit import REDUCTIONS, SIZES, Size
from segadapt.models.segmenter import IMAGENET
from segadapt.weights.key_map import KeyMap
from segadapt.weights.origin import Origin

STAGES = range(1, len(REDUCTIONS) + 1)
DEPTHS = [max(size.depths[stage - 1] for size in SIZES.values()) for stage in STAGES]
_REDUCED = ("attn.sr", "attn.norm")
_BLOCK = ("norm1", "attn.q", "attn.kv", "attn.proj", *_REDUCED, "norm2", "mlp.fc1", "mlp.dwconv.dwconv", "mlp.fc2")

ENCODER = (
    *(f"patch_embed{stage}.{module}" for stage in STAGES for module in ("proj", "norm")),
    *(
        module
        for stage, depth in zip(STAGES, DEPTHS, strict=True)
        for module in (*(f"block{stage}.{i}.{part}" for i in range(depth) for part in _BLOCK), f"norm{stage}")
        if REDUCTIONS[stage - 1] > 1 or not module.endswith(_REDUCED)
    ),
)
"""The encoder's modules in the published order."""
MIT: KeyMap = {module: f"backbone.{module}" for module in ENCODER}
"""MiT as SegFormer's authors name it."""

_TRANSFORMERS_BLOCK = {
    "layer_norm_1": "norm1",
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.kv",
    "attention.self.value": "attn.kv",
    "attention.output.dense": "attn.proj",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "layer_norm_2": "norm2",
    "mlp.dense1": "mlp.fc1",
    "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
    "mlp.dense2": "mlp.fc2",
}
TRANSFORMERS_MIT: KeyMap = {
    f"encoder.{theirs}": f"backbone.{ours}"
    for stage, depth in zip(STAGES, DEPTHS, strict=True)
    for theirs, ours in {
        f"patch_embeddings.{stage - 1}.proj": f"patch_embed{stage}.proj",
        f"patch_embeddings.{stage - 1}.layer_norm": f"patch_embed{stage}.norm",
        **{
            f"block.{stage - 1}.{i}.{theirs}": f"block{stage}.{i}.{ours}"
            for i in range(depth)
            for theirs, ours in _TRANSFORMERS_BLOCK.items()
        },
        f"layer_norm.{stage - 1}": f"norm{stage}",
    }.items()
    if ours in ENCODER
}
"""MiT in the files of the Hugging Face hub, without `segformer.`; keys and values are layers of their own there."""

EMBEDDINGS = tuple(f"embed_layers.{i}.proj" for i in range(len(STAGES)))
_NORMED = ("conv", "bn")
DAFORMER_HEAD = (
    "conv_seg",
    *EMBEDDINGS,
    *(f"fuse_layer.{module}" for module in _NORMED),
    *(f"fuse_layer.aspp_modules.0.{module}" for module in _NORMED),
    *(
        f"fuse_layer.aspp_modules.{i}.{conv}.{module}"
        for i in (1, 2, 3)
        for conv in ("depthwise_conv", "pointwise_conv")
        for module in _NORMED
    ),
    *(f"fuse_layer.bottleneck.{module}" for module in _NORMED),
)
"""DAFormer's decoder with either fusion."""
SEGFORMER_HEAD = (
    *(f"linear_c.{i}.proj" for i in range(len(STAGES))),
    *(f"linear_fuse.{module}" for module in _NORMED),
    "linear_pred",
)
UNUSED = "decode_head.conv_seg."
"""SegFormer's own decoder inherits it, and never uses it."""
PUBLISHED: KeyMap = {
    name: name
    for name in (
        *MIT.values(),
        *(f"decode_head.{module}" for module in (*DAFORMER_HEAD, *SEGFORMER_HEAD)),
    )
}
"""MiT with a decoder as the published programs name it: we name it alike."""
PUBLISHED_HRDA: KeyMap = {
    **{name: f"{PREFIX}{name}" for name in MIT.values()},
    **{f"decode_head.head.{module}": f"{PREFIX}decode_head.{module}" for module in (*DAFORMER_HEAD, *SEGFORMER_HEAD)},
    **{f"decode_head.scale_attention.{module}": f"scale_attention.{module}" for module in DAFORMER_HEAD},
}
"""HRDA of the same."""


def size_of(tensors: Mapping[str, Tensor], at: str) -> str:
    """Which of the encoders has tensors of these shapes, whose names begin with `at`; the nearest if none has."""
    widths = [tensors[name].shape[0] for stage in STAGES if (name := f"{at}norm{stage}.weight") in tensors]
    depths = [
        sum(f"{at}block{stage}.{i}.norm1.weight" in tensors for i in range(DEPTHS[stage - 1])) for stage in STAGES
    ]

    def distance(size: Size) -> int:
        pairs = zip((*widths, *depths), (*size.widths, *size.depths), strict=False)
        return sum(abs(found - own) for found, own in pairs)

    return min(SIZES, key=lambda name: distance(SIZES[name]))


def segformer_options(tensors: Mapping[str, Tensor], prefix: str = "", head: str = "decode_head.") -> dict[str, Any]:
    """What the tensors of a published file say about the network; `head`: where its decoder is."""
    head = prefix + head
    if f"{head}linear_pred.weight" in tensors:
        decoder, width = "segformer", tensors[f"{head}linear_pred.weight"].shape[1]
    else:
        context = any(name.startswith(f"{head}fuse_layer.aspp_modules.") for name in tensors)
        decoder, width = "daformer" if context else "daformer_conv1", tensors[f"{head}conv_seg.weight"].shape[1]
    return {"size": size_of(tensors, f"{prefix}backbone."), "decoder": decoder, "width": width}


def hrda_options(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """The same of a file with HRDA."""
    return {"of": {"name": "segformer", **segformer_options(tensors, prefix, "decode_head.head.")}}


TRAINING = "model."
"""What the student's names begin with in a checkpoint of a published training."""
OTHERS = ("ema_model.", "imnet_model.")
"""The teacher and the frozen ImageNet network in it: the published programs evaluate the student."""


def _published(kind: str, title: str, keys: KeyMap, signature: tuple[str, ...], **more: Any) -> tuple[Origin, Origin]:
    """The origin of a plain state dict, and that of a training's checkpoint."""
    options, skipped = more.pop("read_options"), more.pop("skipped", ())
    plain = Origin(
        kind, f"a published {title} checkpoint", signature, keys, IMAGENET, skipped=skipped, whole=True,
        read_options=options, **more,
    )  # fmt: skip
    training = Origin(
        f"{kind}_training",
        f"a checkpoint of a published {title} training",
        tuple(TRAINING + name for name in signature),
        {TRAINING + theirs: ours for theirs, ours in keys.items()},
        IMAGENET,
        skipped=(*OTHERS, *(TRAINING + name for name in skipped)),
        whole=True,
        read_options=lambda tensors: options(tensors, TRAINING),
        **{**more, "classifier": TRAINING + more["classifier"]},
    )
    return plain, training


_STEM = "backbone.patch_embed1.proj.weight"
SEGFORMER_ORIGINS = (
    *_published(
        "daformer",
        "DAFormer",
        PUBLISHED,
        (_STEM, "decode_head.conv_seg.weight", "decode_head.embed_layers.0.proj.weight"),
        classifier="decode_head.conv_seg.weight",
        read_options=segformer_options,
    ),
    *_published(
        "segformer",
        "SegFormer",
        {theirs: ours for theirs, ours in PUBLISHED.items() if f"{theirs}." != UNUSED},
        (_STEM, "decode_head.linear_pred.weight", "decode_head.linear_c.0.proj.weight"),
        classifier="decode_head.linear_pred.weight",
        skipped=(UNUSED,),
        read_options=segformer_options,
    ),
    Origin(
        "mit",
        "an ImageNet MiT file of SegFormer's authors",
        signature=("patch_embed1.proj.weight", "block1.0.attn.kv.weight"),
        keys=MIT,
        pixels=IMAGENET,
        body=MIT,
        skipped=("head.",),
    ),
    *(
        Origin(
            kind,
            "an ImageNet MiT file of the Hugging Face hub",
            signature=(f"{prefix}encoder.patch_embeddings.0.proj.weight",),
            keys=(keys := {prefix + theirs: ours for theirs, ours in TRANSFORMERS_MIT.items()}),
            pixels=IMAGENET,
            body=keys,
            skipped=("classifier.",),
        )
        for kind, prefix in (("mit_transformers", "segformer."), ("mit_transformers_encoder", ""))
    ),
)
HRDA_ORIGINS = _published(
    "hrda",
    "HRDA",
    PUBLISHED_HRDA,
    (_STEM, "decode_head.head.conv_seg.weight", "decode_head.scale_attention.conv_seg.weight"),
    classifier="decode_head.head.conv_seg.weight",
    options={"detail": (512, 512)},
    size=(2048, 1024),
    read_options=hrda_options,
)

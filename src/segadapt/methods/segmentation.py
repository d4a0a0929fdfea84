"""The cross-entropy that most methods begin with: of all heads of a network, at the size of the labels."""

from torch import Tensor

from segadapt.losses import Loss, cross_entropy, joint, precise, weighted_cross_entropy
from segadapt.models.segmenter import Segmenter, SegOutput


def segmentation_loss(
    network: Segmenter, output: SegOutput, labels: Tensor, auxiliary: float, class_weights: Tensor | None = None
) -> Loss:
    """CE(main head, y) + `auxiliary` · CE(each other head, y), over the labelled pixels of labels (B, H, W).

    Its count is `losses.labelled_pixels(labels, class_weights)`.
    """

    def of_head(i: int) -> Loss:
        logits = network.upsample(precise(output.heads[i]), labels.shape[-2:])
        return cross_entropy(logits, labels, class_weights)

    return joint(of_head, len(output.heads), auxiliary)


def weighted_loss(
    network: Segmenter, output: SegOutput, labels: Tensor, weights: Tensor | None, auxiliary: float
) -> Loss:
    """As `segmentation_loss`, but each pixel of labels (B, H, W) counts by its weight, and the mean is over all pixels.

    weights (B, H, W) in 0..1, or None: 1 for each. The count follows from the shapes.
    """
    each = precise(labels != 255) if weights is None else weights

    def of_head(i: int) -> Loss:
        return weighted_cross_entropy(network.upsample(precise(output.heads[i]), labels.shape[-2:]), labels, each)

    return joint(of_head, len(output.heads), auxiliary)

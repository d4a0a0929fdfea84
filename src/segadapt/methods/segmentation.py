"""The cross-entropy that most methods begin with: of all heads of a network, at the size of the labels."""

from torch import Tensor

from segadapt.losses import Loss, cross_entropy, joint, precise
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

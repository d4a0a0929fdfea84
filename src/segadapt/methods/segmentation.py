"""The cross-entropy that most methods begin with: for all heads and details of a network, at the size of the labels."""

from dataclasses import replace

from torch import Tensor

from segadapt.losses import Loss, cross_entropy, joint, precise, weighted_cross_entropy
from segadapt.models.segmenter import Segmenter, SegOutput


def segmentation_loss(
    network: Segmenter, output: SegOutput, labels: Tensor, auxiliary: float, class_weights: Tensor | None = None
) -> Loss:
    """CE(main head, y) + `auxiliary` · CE(each other head, y), over the labelled pixels of labels (B, H, W).

    For a network with details: (1 - w) times this plus w · CE(detail, its crop of y), w = 0.1 in HRDA. A crop's sum is
    divided by its share of the image, so that all parts have the same count: `losses.labelled_pixels(labels,
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


def loss_terms(
    name: str, network: Segmenter, output: SegOutput, labels: Tensor, auxiliary: float, weights: Tensor | None = None
) -> dict[str, Loss]:
    """The same as separate terms: `name` for the heads, and `name`_detail for a network with details.

    With `weights` (B, H, W) in 0..1, each pixel has its own weight, and means are over all pixels: the counts follow
    from the shapes. Without them, both terms have the count `losses.labelled_pixels(labels)`.
    """

    def compared(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Loss:
        logits = network.upsample(precise(logits), labels.shape[-2:])
        return cross_entropy(logits, labels) if weights is None else weighted_cross_entropy(logits, labels, weights)

    of_heads = joint(lambda i: compared(output.heads[i], labels, weights), len(output.heads), auxiliary)
    terms = {name: output.weight * of_heads}
    for number, detail in enumerate(output.details):
        cut = detail.cut(labels)
        found = compared(detail.logits, cut, None if weights is None else detail.cut(weights))
        if weights is None:
            found = replace(found.times(labels.numel() / cut.numel()), count=of_heads.count)
        terms[f"{name}_detail{number or ''}"] = detail.weight * found
    return terms

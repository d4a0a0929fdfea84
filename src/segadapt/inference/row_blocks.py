"""Logits at full size, a few rows at a time.

For a block of rows, upsampling, softmax, the sum over the views and the arg-max stay in a core's cache, whereas whole
logits (19 classes at 2048×1024: 160 MB, several times) would pass through memory at each of these steps.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from segadapt.models import bilinear

BLOCK = 2**21
"""Approximate bytes of one view's block: what a core's private cache holds."""


def row_blocks(views: Sequence[Tensor], size: tuple[int, int], align_corners: bool) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the output and their scores (1, C, n, W), from top to bottom; size = (H, W).

    `views` are the views' logits (1, C, h, w), float32. The scores are the upsampled logits of the only view, or the
    sum of the softmax outputs of all upsampled views.
    """
    height, width = size
    stretched = [_Stretched(view, size, align_corners) for view in views]
    rows = max(1, BLOCK // (views[0].shape[1] * width * views[0].element_size()))
    for top in range(0, height, rows):
        here = slice(top, min(top + rows, height))
        if len(stretched) == 1:
            yield here, stretched[0].rows(here)
            continue
        scores = stretched[0].rows(here).softmax(dim=1)
        for view in stretched[1:]:
            scores += view.rows(here).softmax(dim=1)
        yield here, scores


class _Stretched:
    """Logits (1, C, h, w) stretched to the output's width, and the matrix that makes output rows from theirs."""

    def __init__(self, logits: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        height, width = size
        self.logits = logits @ bilinear.matrix(logits.shape[3], width, align_corners, logits).T  # (1, C, h, W)
        self.matrix = bilinear.matrix(logits.shape[2], height, align_corners, logits)  # (H, h), two values a row
        used = self.matrix != 0
        self.first = used.byte().argmax(dim=1).tolist()
        self.last = (logits.shape[2] - 1 - used.flip(1).byte().argmax(dim=1)).tolist()

    def rows(self, here: slice) -> Tensor:
        """These rows of the output, (1, C, n, W)."""
        used = slice(self.first[here.start], self.last[here.stop - 1] + 1)
        return self.matrix[here, used] @ self.logits[:, :, used]

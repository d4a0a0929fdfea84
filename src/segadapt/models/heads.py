"""Classifier heads that several networks share."""

from torch import Tensor, nn

DILATIONS = (6, 12, 18, 24)


class AtrousHead(nn.Module):
    """DeepLab-v2's head: parallel 3×3 convolutions of dilation 6, 12, 18, 24, with bias, summed (DeepLab, TPAMI 2018).

    Features (B, F, h, w) -> logits (B, C, h, w). Weights start from N(0, 0.01), biases from 0.

    There are always four convolutions, as in the published files. `published_aspp` (quirk `aspp`) uses the first two
    only: the published programs return inside the loop over them. The other two then never get a gradient.
    """

    def __init__(self, channels: int, classes: int, published_aspp: bool = False) -> None:
        super().__init__()
        self.published_aspp = published_aspp
        self.convs = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=d, dilation=d) for d in DILATIONS)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> Tensor:
        used = list(self.convs)[: 2 if self.published_aspp else None]
        logits: Tensor = used[0](features)
        for conv in used[1:]:
            logits = logits + conv(features)
        return logits

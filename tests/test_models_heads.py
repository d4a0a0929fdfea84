"""What heads compute by other operations than the papers' is what these compute, forward and backward."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segadapt.models import bilinear
from segadapt.models.heads import DILATIONS, AtrousHead


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [(30, 41), (9, 13), (1, 7), (24, 5)])  # narrower than the dilations, too
def test_the_atrous_head_is_the_sum_of_its_convolutions(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head, features = AtrousHead(6, 5), torch.randn(2, 6, *size, requires_grad=True)
    wanted = sum(conv(features) for conv in head.convs)
    assert isinstance(wanted, Tensor)
    found, towards = head(features), torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
    leaves = [features, *head.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(y, leaves, towards) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shifted_taps_are_added_up_as_fold_does(dtype: torch.dtype) -> None:
    """In the same order, in float32: to the last bit, so that no recorded number depends on which of them is used."""
    torch.manual_seed(0)
    head, size = AtrousHead(3, 4).to(dtype), (33, 29)
    convs = cast(list[nn.Conv2d], list(head.convs))
    features = torch.randn(2, 3, *size).to(dtype)
    taps = torch.cat([conv.weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 2) for conv in convs])
    maps = F.linear(features.flatten(2).mT, taps).float().view(2, -1, len(convs), 9, 4)  # (B, h·w, n, 9, C)
    total = torch.stack([cast(Tensor, conv.bias).float() for conv in convs]).sum(0)[:, None, None]
    for number, dilation in enumerate(DILATIONS):
        columns = maps[:, :, number].permute(0, 3, 2, 1).flatten(1, 2)  # (B, C·9, h·w)
        total = total + F.fold(columns, size, 3, dilation=dilation, padding=dilation)
    assert torch.equal(head(features), total)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("align_corners", [True, False])
def test_the_gradient_of_upsampling_by_products_is_that_of_interpolation(align_corners: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 9, 13, requires_grad=True)
    found = bilinear.upsample_for_gpu(logits, (50, 71), align_corners)
    wanted = F.interpolate(logits, size=(50, 71), mode="bilinear", align_corners=align_corners)
    towards = torch.randn_like(wanted)
    assert torch.equal(found, wanted)
    ours, theirs = (torch.autograd.grad(y, logits, towards)[0] for y in (found, wanted))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)

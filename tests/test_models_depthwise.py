"""Depthwise convolutions with gradients of their own equal the library's."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segadapt.models.depthwise import depthwise_conv2d, gains_from_depthwise, input_gradient, weight_gradient
from segadapt.models.efficientnet_lite import SameConv2d

CASES = [  # kernel, stride, padding of rows and columns, dilation, height, width
    (5, 1, (2, 2), 1, 7, 9),
    (5, 2, (2, 2), 1, 8, 11),
    (3, 2, (0, 0), 1, 9, 8),  # padded before, as `SameConv2d` does
    (3, 2, (0, 1), 1, 9, 8),
    (3, 1, (2, 2), 2, 6, 7),
    (5, 1, (4, 4), 2, 5, 6),
    (3, 1, (0, 0), 1, 5, 6),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "height", "width"), CASES)
def test_gradients_in_float64(
    kernel: int, stride: int, padding: tuple[int, int], dilation: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    activations = torch.randn(2, 4, height, width, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    convolved = F.conv2d(activations, weights, None, stride, padding, dilation, 4)
    gradient = torch.randn_like(convolved)
    of_activations, of_weights = torch.autograd.grad(convolved, (activations, weights), gradient)
    how = stride, padding, dilation
    own = input_gradient(gradient, weights.detach(), activations.shape, *how)
    torch.testing.assert_close(own, of_activations, rtol=0, atol=1e-12)
    # Products are summed in float32, as bf16 ones are to be.
    torch.testing.assert_close(
        weight_gradient(gradient, activations.detach(), weights.detach(), *how), of_weights, rtol=0, atol=1e-4
    )


@pytest.mark.numeric
def test_under_autocast_gradients_are_right_up_to_rounding() -> None:
    """bf16 keeps 8 bits: each product and each sum is off by at most 2^-8 of what is summed, in absolute values."""
    torch.manual_seed(0)
    activations = torch.randn(2, 8, 9, 11).bfloat16().float().requires_grad_()
    weights = torch.randn(8, 1, 5, 5).bfloat16().float().requires_grad_()
    bias = torch.randn(8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        convolved = depthwise_conv2d(activations, weights, bias, 1, (2, 2), 1)
    assert convolved.dtype == torch.bfloat16
    gradient = torch.linspace(-1, 1, convolved.numel()).view_as(convolved).bfloat16()
    found = torch.autograd.grad(convolved, (activations, weights, bias), gradient)
    g, x, w = (values.detach().double() for values in (gradient, activations, weights))
    how = 1, (2, 2), 1

    def gradients(g: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return input_gradient(g, w, x.shape, *how), weight_gradient(g, x, w, *how), g.sum((0, 2, 3))

    for ours, exact, summed in zip(found, gradients(g, x, w), gradients(g.abs(), x.abs(), w.abs()), strict=True):
        assert ((ours - exact).abs() <= 2**-7 * summed).all()


def test_where_the_librarys_is_quick_it_is_used() -> None:
    activations = torch.zeros(1, 4, 5, 5)
    dilated = SameConv2d(4, 4, 3, dilation=2, groups=4)
    assert not gains_from_depthwise(dilated, activations)
    with torch.autocast("cpu", torch.bfloat16):
        assert gains_from_depthwise(dilated, activations)
        assert not gains_from_depthwise(SameConv2d(4, 4, 3, groups=4), activations)
        assert not gains_from_depthwise(SameConv2d(4, 8, 5, groups=4), activations)
        assert not gains_from_depthwise(dilated, activations.to("meta"))

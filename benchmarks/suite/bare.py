"""The networks of a training step alone: the same forward and backward passes, and nothing else.

For SEAN they are the teacher's forward, the student's forward and backward on source and target; for SE-GAN the same
and the discriminators' (on the target's maps with gradients to the maps, on both domains' maps with gradients to the
weights); for AdaptSegNet the same without a teacher; for TGSTN two forward passes of the generator and one backward,
the segmenter's on original and stylized pixels, the discriminator's four; for source-only and self-training one forward
and backward. The step adds the losses at full size, softmax maps, noise, the check for finite gradients, the
optimizers and the moving average.
"""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segadapt.batch import Batch
from segadapt.methods.adaptsegnet import AdaptSegNet
from segadapt.methods.method import frozen
from segadapt.methods.se_gan import SeGan
from segadapt.methods.sean import Sean
from segadapt.methods.self_training import SelfTraining
from segadapt.methods.supervised import SourceOnly
from segadapt.methods.tgstn import Tgstn
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import CAFFE, Segmenter
from suite.trainings import Case


class BarePasses:
    """Forward and backward passes of a case's networks; gradients are dropped afterwards."""

    def __init__(self, case: Case) -> None:
        self.case = case
        device, classes = case.runtime.device, 0
        if isinstance(case.method.result, Segmenter):
            classes = case.method.result.classes
        # Softmax maps of both domains for the discriminators, drawn before.
        sizes = (case.size, case.target_size)
        self.maps = [torch.rand(1, classes, height, width, device=device) for width, height in sizes]

    def __call__(self, batch: Batch) -> None:
        """The passes of one step."""
        method = self.case.method
        with self.case.runtime.autocast():
            result = total(self._outputs(batch))
        result.backward()  # type: ignore[no-untyped-call]
        for module in method.modules.values():
            module.zero_grad(set_to_none=True)

    def flops(self, batch: Batch) -> int:
        """Floating-point operations of the passes: multiplications and additions of convolutions and products."""
        with FlopCounterMode(display=False) as counter:
            self(batch)
        return int(counter.get_total_flops())

    def _outputs(self, batch: Batch) -> list[Tensor]:
        """What backward starts from."""
        source, target = batch.source, batch.target
        assert source is not None and target is not None
        match self.case.method:
            case SeGan() as method:
                with torch.no_grad():
                    method.teacher(target.images)
                outputs = [*method.student(target.images).heads, *method.student(source.images).heads]
                return outputs + self._game(list(method.discriminators.values()))
            case Sean() as method:
                with torch.no_grad():
                    method.teacher(target.images)
                return [method.student(target.images).logits, method.student(source.images).logits]
            case AdaptSegNet() as method:
                outputs = [*method.network(target.images).heads, *method.network(source.images).heads]
                return outputs + self._game(list(method.discriminators.values()))
            case Tgstn() as method:
                return self._tgstn(method, CAFFE(source.images), CAFFE(target.images))
            case SelfTraining() as method:
                return list(method.network(target.images).heads)
            case SourceOnly() as method:
                return list(method.network(source.images).heads)
        raise AssertionError(self.case.name)

    def _game(self, discriminators: list[Discriminator]) -> list[Tensor]:
        """Each discriminator three times."""
        answers = []
        source, target = self.maps
        for d in discriminators:
            with frozen(d):
                answers.append(d(target.clone().requires_grad_()))
            answers += [d(source), d(target)]
        return answers

    def _tgstn(self, method: Tgstn, source: Tensor, target: Tensor) -> list[Tensor]:
        """Generator twice (backward once), segmenter twice (backward to its input once), discriminator four times."""
        with torch.no_grad():
            method.generator(source)
            method.segmenter.segment(source)
        stylized = method.generator(source)
        with frozen(method.discriminator):
            fooled = method.discriminator(stylized.detach().requires_grad_())
        real = [method.discriminator(pixels) for pixels in (source, source, target)]
        return [stylized, method.segmenter.segment(stylized).logits, fooled, *real]


def total(tensors: list[Tensor]) -> Tensor:
    """A scalar that sends a gradient of ones back."""
    return torch.stack([tensor.float().sum() for tensor in tensors]).sum()


def bare_views(network: nn.Module, inputs: list[Tensor], precision: str) -> None:
    """Forward passes alone, as evaluation has them."""
    device = inputs[0].device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for one in inputs:
            network(one)

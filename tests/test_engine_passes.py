"""What a step costs in backward passes: with k micro-batches k times those of one, for each network of each method."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from by_hand import CPU, batch
from segadapt.engine.updater import Updater
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings
from segadapt.models.segmenter import Segmenter
from segadapt.models.small import DeepLabSmall

CLASSES = 5


class Small:
    """The `Networks` of this test: a small one for each segmenter."""

    length = 4
    things: tuple[int, ...] = (0, 1)

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        return DeepLabSmall(CLASSES, attention=attention)

    def saved_segmenter(self, reference: str) -> Segmenter:
        return DeepLabSmall(CLASSES)

    def fill(self, module: nn.Module, name: str, file: object) -> None:
        """All stay fresh."""


def backward_passes(name: str, accumulate: int) -> dict[str, int]:
    """Network -> how often a gradient has come to its last convolution in one step of four samples."""
    kind = METHODS[name].settings_type
    needed = {key: "@none" for key, field in kind.model_fields.items() if field.is_required()}
    settings = kind.model_validate({**needed, "steps": 4, "batch": 4, "accumulate": accumulate})
    torch.manual_seed(0)
    method = METHODS[name].build(Small(), settings)
    counts: dict[str, int] = {}
    for network, module in method.modules.items():
        for last in [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)][-1:]:

            def note(*_: object, network: str = network) -> None:
                counts[network] = counts.get(network, 0) + 1

            last.register_full_backward_hook(note)
    whole = batch(0, 4, target_labels=True)
    source = whole.of("source")
    square = replace(source, images=source.images[..., :32], labels=whole.labels("source")[..., :32])
    Updater(method.optimizers, CPU, accumulate).run(method, replace(whole, source=square))
    return counts


PASSES = {
    "source_only": {"network": 1},
    "target_trained": {"network": 1},
    "sean": {"student": 2},
    "tgstn": {"generator": 1, "discriminator": 4},
    "se_gan": {"student": 2, "discriminator2": 3},
    "self_training": {"network": 1},
    "cbst": {"network": 2},
    "adaptsegnet": {"network": 2, "discriminator2": 3},
    "dacs": {"student": 2},
    "daformer": {"student": 2},
    "mic": {"student": 3},
}


@pytest.mark.parametrize("name", PASSES)
def test_micro_batches_cost_their_own_passes_and_no_more(name: str) -> None:
    for accumulate in (1, 2, 4):
        expected = {network: accumulate * times for network, times in PASSES[name].items()}
        assert backward_passes(name, accumulate) == expected

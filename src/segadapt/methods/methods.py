"""The methods by name: what a recipe's `method:` can say, beside `evaluate`."""

from segadapt.methods.method import Method
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.methods.settings import TrainingSettings
from segadapt.methods.supervised import SourceOnly, TargetTrained
from segadapt.models.segmenter import Segmenter

METHODS: dict[str, type[Method]] = {"source_only": SourceOnly, "target_trained": TargetTrained, "sean": Sean}


def make_method(network: Segmenter, settings: TrainingSettings) -> Method:
    """The method of these settings over a network that has its starting weights and is on its device."""
    if isinstance(settings, SeanSettings):
        return Sean(network, settings)
    kind = TargetTrained if settings.method == "target_trained" else SourceOnly
    return kind(network, settings)

"""The methods by name: what a recipe's `method:` can say, beside the stages that do not train."""

from segadapt.methods.adaptsegnet import AdaptSegNet, AdaptSegNetSettings
from segadapt.methods.method import Method
from segadapt.methods.se_gan import SeGan, SeGanSettings
from segadapt.methods.sean import Sean, SeanSettings
from segadapt.methods.self_training import SelfTraining, SelfTrainingSettings
from segadapt.methods.settings import SegmenterSettings
from segadapt.methods.supervised import SourceOnly, SourceOnlySettings, TargetTrained, TargetTrainedSettings
from segadapt.methods.tgstn import Tgstn
from segadapt.models.segmenter import Segmenter

METHODS: dict[str, type[Method]] = {
    "source_only": SourceOnly,
    "target_trained": TargetTrained,
    "sean": Sean,
    "tgstn": Tgstn,
    "se_gan": SeGan,
    "self_training": SelfTraining,
    "adaptsegnet": AdaptSegNet,
}


def segmenter_method(network: Segmenter, settings: SegmenterSettings, length: int) -> Method:
    """The method of these settings over a segmenter that has its starting weights.

    `length` is that of the schedule, in steps.
    """
    match settings:
        case SeanSettings():
            return Sean(network, settings)
        case SeGanSettings():
            return SeGan(network, settings, length)
        case SelfTrainingSettings():
            return SelfTraining(network, settings)
        case AdaptSegNetSettings():
            return AdaptSegNet(network, settings)
        case SourceOnlySettings():
            return SourceOnly(network, settings)
        case TargetTrainedSettings():
            return TargetTrained(network, settings)
    raise AssertionError(f"{settings.method} trains no segmenter")

"""Whether what a training starts from fits its network: told before anything begins, not hours later."""

import torch

from segadapt.errors import UsageError
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models import networks
from segadapt.references import references
from segadapt.stages.context import Run
from segadapt.weights.initial import load_start
from segadapt.weights.starts import DOWNLOADS


def need_same_attention(run: Run, name: str, settings: TrainingSettings) -> None:
    """Raise UsageError when only one of a stage's network and that of the stage it starts from has attention: now, not
    when the earlier stage is done."""
    before = references(settings).get("start")
    earlier = None if before is None else run.recipe.stages[before]
    if not isinstance(settings, SegmenterSettings) or settings.fresh_head or not isinstance(earlier, SegmenterSettings):
        return
    own, given = (METHODS[stage.method].attention for stage in (settings, earlier))
    if own != given:
        raise UsageError(
            f"is '@{before}', whose network has {'no ' * own}attention; that of method {settings.method} has "
            f"{'some' if own else 'none'}",
            where=f"stages.{name}.start",
            remedy=f"Name another start, or set stages.{name}.fresh_head=true: all but the attention is taken over.",
        )


def need_fitting_files(run: Run, settings: TrainingSettings) -> None:
    """Raise UsageError when a file that a stage's network starts from, or the frozen encoder of its feature distance,
    is broken or another network's, as `load_start` does."""
    if not isinstance(settings, SegmenterSettings) or settings.stand_in is not None:
        return
    starts = dict.fromkeys((settings.start, getattr(settings, "feature_start", None)))
    for file in starts:
        if file is None or file.startswith("@") or file in DOWNLOADS:  # the last two are not made or not fetched yet
            continue
        attention = METHODS[settings.method].attention
        with torch.device("meta"):  # names and shapes are all that counts
            network = networks.build(settings.chosen_network, classes=len(run.space.classes), attention=attention)
        load_start(network, file, positional=settings.quirk("positional_load"), fresh_head=settings.fresh_head)

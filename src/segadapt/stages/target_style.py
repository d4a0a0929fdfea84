"""Setting `fda` of any training that sees both domains: source images in the style of the target (FDA, CVPR 2020)."""

from dataclasses import replace

from torch.nn import functional as F

from segadapt.augment.fourier import with_amplitudes_of
from segadapt.batch import Batch
from segadapt.errors import UsageError
from segadapt.losses import precise
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import TrainingSettings


def in_target_style(batch: Batch, share: float) -> Batch:
    """The batch with the low-frequency amplitudes of target image i in source image i, in floating point (FDA)."""
    source, target = batch.of("source"), precise(batch.images("target"))
    if target.shape != source.images.shape:
        target = F.interpolate(target, size=source.images.shape[-2:], mode="bilinear", antialias=True)
    return replace(batch, source=replace(source, images=with_amplitudes_of(target, source.images, share)))


def need_both_domains(name: str, settings: TrainingSettings) -> None:
    """Raise UsageError when a method that does not see both domains is to train with `fda`."""
    if settings.fda is not None and set(METHODS[settings.method].domains) != {"source", "target"}:
        raise UsageError(
            f"is {settings.fda:g}, but method {settings.method} does not see the images of both domains",
            where=f"stages.{name}.fda",
            remedy="Leave it out, or use a method that does.",
        )

"""A checkpoint in place of a training: published, or one's own, it becomes the stage's model as it is."""

from pathlib import Path

from segadapt.errors import UsageError
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models.style_transfer import StyleTransfer
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains, validation
from segadapt.stages.provenance import used_target_labels
from segadapt.stages.training import fresh_segmenter
from segadapt.weights.checkpoint_files import read_checkpoint
from segadapt.weights.initial import load_module, load_start
from segadapt.weights.provenance import either
from segadapt.weights.saved import GeneratorHeader, ModelHeader, load_model, save_generator, save_model


def stand_in_domains(run: Run, settings: TrainingSettings) -> Domains:
    """What such a stage needs of the data: images to score on."""
    data, size = run.recipe.data, settings.target_size or settings.size
    return Domains(
        None,
        None,
        validation(data.named("source"), run.space, settings.size),
        validation(data.named("target"), run.space, size),
    )


def stand_in(run: Run, name: str, settings: TrainingSettings) -> None:
    """Write `model.safetensors` of a stage from the checkpoint that its setting `stand_in` names; rank 0 does.

    Raises UsageError for a checkpoint of another network, or one that holds only a part of it.
    """
    assert settings.stand_in is not None
    if not run.runtime.is_main:
        return
    path, result = run.file_of(settings.stand_in), run.file_of(f"@{name}")
    if isinstance(settings, SegmenterSettings):
        _segmenter(run, name, settings, path, result)
        return
    generator = StyleTransfer(bool(getattr(settings, "residual", False)))
    run.watcher.say(f"{name}: not trained; {path}, {load_module(generator, path)}, stands in for it")
    header = GeneratorHeader(
        residual=generator.residual,
        size=settings.size,
        stage=name,
        method=settings.method,
        used_target_labels=used_target_labels(run, name),
    )
    save_generator(result, generator, header)


def _segmenter(run: Run, name: str, settings: SegmenterSettings, path: Path, result: Path) -> None:
    without_start = settings.model_copy(update={"start": None})
    network = fresh_segmenter(run, name, without_start, METHODS[settings.method].attention)
    report = load_start(network, path)
    if report.fresh:
        raise UsageError(
            f"this is {report.origin}, which lacks {', '.join(report.fresh[:3])}"
            + (f" and {len(report.fresh) - 3} more" if len(report.fresh) > 3 else ""),
            where=path,
            remedy="What stands in for a training must be a whole network; give it as `start` to train from it.",
        )
    run.watcher.say(f"{name}: not trained; {path}, {report.origin}, stands in for it")
    own = load_model(path).header if read_checkpoint(path).info.kind == "model" else None
    header = ModelHeader(
        network=settings.network_name,
        attention=network.attention is not None,
        pixels=network.pixels.name,
        align_corners=settings.align_corners if own is None else own.align_corners,
        label_space=run.space.as_dict(),
        size=settings.target_size or settings.size,
        stage=name,
        method=settings.method,
        step=own.step if own else None,
        selection=own.selection if own else None,
        # The published checkpoints were chosen by target labels, as the quirk says.
        used_target_labels=either(used_target_labels(run, name), own is None and settings.quirk("selection")),
    )
    save_model(result, network, header)

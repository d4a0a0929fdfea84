"""A training stage: data, network, method and loop put together, and the models that come out."""

import copy
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from segadapt.batch import Batch
from segadapt.batch_norm import batch_norms
from segadapt.data import loader
from segadapt.data.dataset import JoinedDataset, TrainingData
from segadapt.data.samplers import SAMPLERS, RareClassSettings, Sampler, Setting, Shares, part_seed
from segadapt.data.statistics import ClassStatistics, class_statistics, one_class_only
from segadapt.engine.selection import Selection, Selector
from segadapt.engine.trainer import Trainer, Training
from segadapt.errors import UsageError
from segadapt.evaluation.evaluate import quick_scores, quick_sums
from segadapt.files import write_with
from segadapt.inference.model import MODEL
from segadapt.inference.predictor import Predictor
from segadapt.methods.method import DomainName, Method
from segadapt.methods.registry import METHODS
from segadapt.methods.settings import SegmenterSettings, TrainingSettings
from segadapt.models import networks
from segadapt.models.discriminators import Discriminator
from segadapt.models.segmenter import Segmenter
from segadapt.models.style_transfer import StyleTransfer
from segadapt.stages.context import Run
from segadapt.stages.domains import Domains, learned
from segadapt.stages.image_files import threads
from segadapt.stages.provenance import said_by_checkpoint, used_target_labels
from segadapt.stages.stage import Work
from segadapt.stages.target_style import in_target_style
from segadapt.stages.tracked import pictures_every, pictures_of
from segadapt.tracking.trackers import Tracking
from segadapt.weights.initial import load_module, load_start
from segadapt.weights.provenance import Answer, either
from segadapt.weights.saved import GeneratorHeader, ModelHeader, SavedModel, load_any, save_generator, save_model

MINIMUM_MIOU = 20.0
"""Quirk `selection`: a network at or below this mIoU on target val was never kept."""


def train(work: Work, domains: Domains, tracking: Tracking | None = None) -> SavedModel | None:
    """Train the stage from wherever its folder stands, and leave `model.safetensors` there.

    `domains`: with what other stages have made; `tracking`: where it is shown. Gives that model, on rank 0, where it is
    a segmenter and its last state. With a continuation from its checkpoint instead: UsageError, and nothing is changed,
    when that does not fit.
    """
    run, name, settings, folder, runtime = work.run, work.name, work.settings, work.folder, work.run.runtime
    steps = settings.number_of_steps(labelled_images(settings, domains))
    for caution in settings.cautions():
        work.say(f"warning: {caution}")
    method = fresh_method(run, name, settings, steps)
    facts: dict[str, Any] = {
        "method": settings.method,
        "network": settings.network if isinstance(settings, SegmenterSettings) else "style_transfer",
        "used_target_labels": runtime.from_main(lambda: used_target_labels(run, name)),
    }
    if work.continuation is not None:
        work.continuation.restore(runtime.from_main(work.continuation.read), method, facts)
        runtime.barrier()
        if runtime.is_main:
            work.continuation.take_over()
        runtime.barrier()
    used = either(facts["used_target_labels"], runtime.from_main(lambda: said_by_checkpoint(folder)))
    facts["used_target_labels"] = used
    save = saver(run, name, settings, method, used)
    criterion = (settings.criterion if isinstance(settings, SegmenterSettings) else None) or "infomax"
    selector = Selector(folder, save, MINIMUM_MIOU if settings.quirk("selection") else -1.0, criterion)
    batches = batches_of(run, settings, domains, steps)
    evaluate, every = None, 0
    if isinstance(settings, SegmenterSettings) and settings.evaluate_every:
        evaluate, every = evaluation_during_training(domains, settings, run, method), settings.evaluate_every
    about = Training(
        *(method, settings, steps, folder, batches, evaluate, every, selector, run.watcher, facts),
        tracking=tracking,
        pictures=pictures_of(domains, settings, run, method),
        pictures_every=pictures_every(run, settings),
    )
    Trainer(about, runtime).run()
    kept = keep_result(run, settings, selector, save, steps) if runtime.is_main else None
    runtime.barrier()
    network = method.result
    if kept != "last" or not isinstance(network, Segmenter):
        return None
    assert isinstance(settings, SegmenterSettings)
    header = header_of(run, name, settings, network, used, steps, "last")
    return SavedModel(copy.deepcopy(network).eval(), header)  # as from the file: a copy is not compiled


def labelled_images(settings: TrainingSettings, domains: Domains) -> int:
    """How many images the method learns from with labels: what an epoch counts."""
    labelled = domains.source if METHODS[settings.method].labelled == "source" else domains.target
    assert labelled is not None
    return len(labelled)


def need_equal_shares(run: Run, name: str, settings: TrainingSettings) -> None:
    """Raise UsageError when the stage's batch cannot be split over ranks and accumulation steps."""
    share = run.runtime.ranks * settings.accumulate
    if settings.batch % share:
        raise UsageError(
            f"batch {settings.batch} cannot be split over {run.runtime.ranks} ranks with accumulate "
            f"{settings.accumulate}",
            where=f"stages.{name}.batch",
            remedy=f"`batch` counts all ranks: use a multiple of {share}.",
        )


def need_selectable(name: str, settings: TrainingSettings, domains: Domains) -> None:
    """Raise UsageError when no evaluation could choose the model as `select` says: now, not at the training's end."""
    if not isinstance(settings, SegmenterSettings) or settings.select == "last" or settings.stand_in is not None:
        return
    target = domains.target_val
    lacks = None
    if settings.evaluate_every == 0:
        lacks = "evaluate_every is 0: nothing is evaluated during training"
    elif target is None:
        lacks = "the target has no images to evaluate on (split val)"
    elif settings.select == "best_target" and target.labels is None:
        lacks = "the target's split val has no labels"
    if lacks is not None:
        raise UsageError(
            f"is {settings.select}, but {lacks}",
            where=f"stages.{name}.select",
            remedy="Set evaluate_every, give the target a split val (holdout, val_list), or use select: last.",
        )


def need_long_schedule(name: str, settings: TrainingSettings, steps: int) -> None:
    """Raise UsageError when the schedule of a stage that counts in epochs ends before its steps do."""
    try:
        settings.need_long_schedule(steps)
    except ValueError as error:
        raise UsageError(str(error), where=f"stages.{name}.schedule_steps", remedy="It counts updates.") from error


def fresh_method(run: Run, name: str, settings: TrainingSettings, steps: int) -> Method:
    """The stage's method over networks with their initial weights, on the run's device.

    Rank 0 makes it, and the others get what it has made: they need not see the files.
    """
    run.runtime.need_compiler()
    method = run.runtime.from_main(lambda: built(run, name, settings, steps))
    for module in (*method.modules.values(), *method.helpers.values()):
        run.runtime.place(module)
    return method


def built(run: Run, name: str, settings: TrainingSettings, steps: int) -> Method:
    """The stage's method over networks with their initial weights."""
    torch.manual_seed(run.recipe.seed)
    return METHODS[settings.method].build(InitialNetworks(run, name, settings.schedule_steps or steps), settings)


class InitialNetworks:
    """The `Networks` of a stage: with the initial weights that its settings name."""

    def __init__(self, run: Run, stage: str, length: int) -> None:
        self.run, self.stage, self.length, self.things = run, stage, length, run.space.things

    def segmenter(self, settings: SegmenterSettings, attention: bool = False) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        return fresh_segmenter(self.run, self.stage, settings, attention)

    def saved_segmenter(self, reference: str) -> Segmenter:
        """See `segadapt.methods.method.Networks`."""
        return load_any(self.run.file_of(reference), self.run.space).network

    def fill(self, module: StyleTransfer | Discriminator, name: str, file: str | Path | None) -> None:
        """See `segadapt.methods.method.Networks`."""
        if file is not None:
            self.run.watcher.say(f"{self.stage}: {name} starts from {load_module(module, self.run.file_of(file))}")


def fresh_segmenter(run: Run, name: str, settings: SegmenterSettings, attention: bool) -> Segmenter:
    """The stage's segmenter with its initial weights."""
    network = networks.build(settings.chosen_network, classes=len(run.space.classes), attention=attention)
    network.need_size(*settings.size, where=f"stages.{name}.size")
    network.need_size(*(settings.target_size or settings.size), where=f"stages.{name}.target_size")
    if settings.start is not None:
        start = str(run.file_of(settings.start)) if settings.start.startswith("@") else settings.start
        report = load_start(
            network, start, positional=settings.quirk("positional_load"), fresh_head=settings.fresh_head
        )
        run.watcher.say(f"{name}: {report}")
    elif settings.stand_in is None and not settings.learns_statistics and any(batch_norms(network)):
        run.watcher.say(f"{name}: a fresh network whose batch norms are frozen hardly learns; set batch_norm: learn")
    if settings.align_corners is not None:
        network.align_corners = settings.align_corners
    network.checkpointing = settings.checkpointing
    return network


Save = Callable[[Path, int, Selection], None]
"""Write the method's result as it is now: path, updates done, why this one."""


def saver(run: Run, name: str, settings: TrainingSettings, method: Method, used: Answer) -> Save:
    """How the models of a stage are written; `used`: whether target labels had a part in what it is made from."""

    def save(path: Path, step: int, selection: Selection) -> None:
        network = method.result
        if isinstance(network, StyleTransfer):
            about = GeneratorHeader(
                residual=network.residual,
                size=settings.size,
                stage=name,
                method=settings.method,
                step=step,
                used_target_labels=used,
            )
            save_generator(path, network, about)
            return
        assert isinstance(settings, SegmenterSettings)
        save_model(path, network, header_of(run, name, settings, network, used, step, selection))

    return save


def sampler_of(
    run: Run, settings: TrainingSettings, data: TrainingData, domain: DomainName, restart_after: int | None = None
) -> Sampler:
    """What chooses the images of a domain. Rank 0 counts classes where the sampler asks for them, for all ranks."""
    place = run.recipe.data.domains(domain)[0].prepared_root
    view = settings.source_view if domain == "source" else settings.target_view

    def of(data: TrainingData, seed: int, batch: int) -> Sampler:
        def statistics() -> ClassStatistics:
            count = partial(class_statistics, data, place, threads(run.runtime), run.watcher.say)
            return run.runtime.from_main(count)

        about = Setting(
            seed,
            batch,
            images=len(data),
            domain=("source", "target").index(domain),
            rare_classes=settings.rare_classes or RareClassSettings(),
            statistics=statistics,
            restart_after=restart_after,
        )
        if not isinstance(data, JoinedDataset) or data.shares is None:
            return SAMPLERS[view.sampler](about)
        if restart_after is not None:
            raise UsageError(
                "applies to passes over one target, not to shares of several",
                where="quirk target_restart",
                remedy="Set quirks: {target_restart: false}, or leave the shares out.",
            )
        samplers = [of(part, part_seed(seed, k), 1) for k, part in enumerate(data.parts)]
        return Shares.of(about, data.shares, [len(part) for part in data.parts], samplers)

    return of(data, run.recipe.seed, settings.batch)


def header_of(
    run: Run,
    name: str,
    settings: SegmenterSettings,
    network: Segmenter,
    used: Answer,
    step: int,
    selection: Selection,
) -> ModelHeader:
    """What a model of the stage says about itself; `used` as in `saver`."""
    return ModelHeader(
        network=settings.network_name,
        attention=network.attention is not None,
        pixels=network.pixels.name,
        align_corners=settings.align_corners,
        label_space=run.space.as_dict(),
        size=settings.target_size or settings.size,
        stage=name,
        method=settings.method,
        step=step,
        selection=selection,
        used_target_labels=either(selection == "best_target", used),
    )


def batches_of(run: Run, settings: TrainingSettings, domains: Domains, steps: int) -> Callable[[int], Iterator[Batch]]:
    """first step -> this rank's batches from there to the end."""
    runtime, domains = run.runtime, learned(settings, domains)
    source = target = None
    if domains.source is not None:
        source = loader.Sampled(domains.source, sampler_of(run, settings, domains.source, "source"))
    if domains.target is not None:
        restart = len(domains.source) if settings.quirk("target_restart") and domains.source is not None else None
        target = loader.Sampled(domains.target, sampler_of(run, settings, domains.target, "target", restart))
    items = loader.Steps(run.recipe.seed, settings.batch, source, target, runtime.rank, runtime.ranks)

    def from_step(first: int) -> Iterator[Batch]:
        workers = runtime.workers
        if runtime.measure_workers and first < steps:
            workers, seconds = loader.needed_workers(items, first, most=runtime.workers)
            run.watcher.say(f"a batch is read in {1000 * seconds:.0f} ms: {workers} loader processes")
        read = loader.batches(items, first, steps, workers, pin_memory=runtime.device.type == "cuda")
        looked_at = min(settings.log_every, steps - first)

        def tell(pixels: list[int]) -> None:
            wrong = one_class_only(pixels, run.space.classes)
            when = f"first {looked_at} steps" if looked_at > 1 else "first step"
            run.watcher.say(
                f"warning: in the {when} {wrong}. A network learns nothing from that; "
                "`segadapt data check` looks at all labels"
            )

        batches = loader.on_device(loader.watched(read, len(run.space), looked_at, tell), runtime.device)
        return batches if settings.fda is None else (in_target_style(batch, settings.fda) for batch in batches)

    return from_step


def evaluation_during_training(
    domains: Domains, settings: SegmenterSettings, run: Run, method: Method
) -> Callable[[], dict[str, float]] | None:
    """Scores of the method's result on the validation images, of which each rank sees its share; None without any."""
    if domains.source_val is None and domains.target_val is None:
        return None
    runtime, batch = run.runtime, run.runtime.inference_batch

    def predictor() -> Predictor:
        network = method.result
        assert isinstance(network, Segmenter)
        size = settings.target_size or settings.size
        return Predictor(network, size, precision=runtime.precision, plain=settings.official, batch=batch)

    def own() -> dict[str, torch.Tensor]:
        return quick_sums(
            predictor(),
            run.space,
            target_val=domains.target_val,
            source_val=domains.source_val,
            limit=settings.evaluate_images,
            threads=threads(runtime),
            share=(runtime.rank, runtime.ranks),
        )

    def evaluate() -> dict[str, float]:
        nonlocal batch
        if runtime.ranks > 1:  # each rank would count another batch, with other shares of the images
            batch = batch or runtime.from_main(lambda: predictor().batch)
        sums = runtime.together(own)
        return quick_scores({name: runtime.sum(values) for name, values in sums.items()}, run.space)

    return evaluate


def keep_result(run: Run, settings: TrainingSettings, selector: Selector, save: Save, steps: int) -> Selection:
    """Write the last model, put the selected one in place as `model.safetensors`, and say which it is."""
    selection: Selection = settings.select if isinstance(settings, SegmenterSettings) else "last"
    if settings.quirk("selection"):
        selection = "best_target"
    if not settings.quirk("last_not_saved"):
        save(selector.path("last"), steps, "last")
    if not selector.path(selection).is_file():
        run.watcher.say(
            f"no network was selected by '{selection}' (no evaluation was good enough): the last one is kept"
        )
        selection = "last"
        if not selector.path(selection).is_file():
            save(selector.path(selection), steps, selection)
    chosen = selector.path(selection)
    write_with(selector.folder / MODEL, lambda temporary: _copy(chosen, temporary))
    return selection


def _copy(file: Path, to: Path) -> None:
    shutil.copyfile(file, to)

"""The page: its components, and which function handles which click. The computation is in the other files."""

import re
import shutil
import threading
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from segadapt.app import runs
from segadapt.app.choices import Choices
from segadapt.app.clips import ClipOptions, predict_clip
from segadapt.app.networks import Networks, Segmenter
from segadapt.app.pictures import Wanted, look, read_upload
from segadapt.app.server import Limits
from segadapt.app.temporary import AGE, SWEEP, new_folder
from segadapt.data.catalog import IMAGE_SUFFIXES
from segadapt.data.packed import VIDEO_SUFFIXES
from segadapt.errors import SegadaptError, UsageError
from segadapt.inference.formats import OPACITY
from segadapt.report import page
from segadapt.video.inputs import is_video
from segadapt.video.panels import VIEWS

NO_STYLE = "none"
EMPTY = '<div class="empty">Drop an image or a clip to see it through the models.</div>'
NO_MODEL = '<div class="empty">Choose a model.</div>'
STRENGTH = "(strength) => { document.documentElement.style.setProperty('--strength', strength / 100); }"
"""The browser blends image and classes itself, so the slider needs no request."""
TURN: dict[str, Any] = {"concurrency_id": "networks", "concurrency_limit": 1}
"""Queue for everything that runs networks: one at a time."""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


class Interface:
    """The page for some choices; sessions share networks and nothing else."""

    def __init__(self, choices: Choices, networks: Networks, limits: Limits, folder: Path) -> None:
        self.choices, self.networks, self.limits, self.folder = choices, networks, limits, folder
        self._stops: dict[str, threading.Event] = {}

    def blocks(self) -> Any:
        """The gradio page."""
        with gr.Blocks(title="segadapt", analytics_enabled=False, delete_cache=(SWEEP, AGE)) as blocks:
            gr.HTML('<div class="top"><b>segadapt</b><span>segmenters before and after adaptation</span></div>')
            with gr.Tabs():
                if self.choices.segmenters:
                    with gr.Tab("Try a model", id="try"):
                        self._try()
                if self.choices.runs:
                    with gr.Tab("Browse a run", id="browse"):
                        self._browse(blocks)
            blocks.unload(self._left)
        blocks.queue(max_size=self.limits.waiting, api_open=False)
        return blocks

    def _try(self) -> None:
        choices = self.choices
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                suffixes = sorted({*IMAGE_SUFFIXES, *VIDEO_SUFFIXES})
                file = gr.File(label="Image or clip", file_types=suffixes, height=140, elem_id="upload")
                sample = gr.Button("Take an image of the target", size="sm", visible=bool(choices.runs))
                models = gr.CheckboxGroup(
                    list(choices.segmenters), value=choices.answers[:1], label="Models", elem_id="models"
                )
                strength = gr.Slider(0, 100, round(100 * OPACITY), step=1, label="Overlay, %", elem_id="strength")
                more = gr.CheckboxGroup(["confidence", "attention"], label="Show too", elem_id="more")
                styles = [NO_STYLE, *choices.generators]
                style = gr.Dropdown(
                    styles, value=NO_STYLE, label="In the target's style, by", visible=len(styles) > 1, elem_id="style"
                )
                clip_options = self._clip_options()
            with gr.Column(scale=3, min_width=300):
                video = gr.Video(visible=False, label="Predicted clip", elem_id="video", buttons=["download"])
                said = gr.Markdown(visible=False, elem_id="said")
                shown = gr.HTML(EMPTY, elem_id="shown", apply_default_css=False)
        group, view, seconds, every, smooth, begin, stop = clip_options
        taken = gr.State(0)
        seen = {"fn": self.seen, "inputs": [file, models, more, style], "outputs": [shown, group, video, said]}
        gr.on(
            [file.upload, file.clear, models.input, more.input, style.input],
            trigger_mode="always_last",
            **seen,
            **TURN,
            **PRIVATE,
        )
        sample.click(self.sample, [models, taken], [file, taken], **PRIVATE).success(**seen, **TURN, **PRIVATE)
        strength.input(None, [strength], None, js=STRENGTH, **PRIVATE)
        # The player is first, so that progress has a place.
        begin.click(lambda: gr.update(value=None, visible=True), None, video, queue=False, **PRIVATE).then(
            self.clip, [file, models, view, strength, seconds, every, smooth], [video, said], **TURN, **PRIVATE
        )
        stop.click(self.stop, None, None, queue=False, **PRIVATE)

    def _clip_options(self) -> tuple[Any, ...]:
        longest = self.limits.seconds
        with gr.Group(visible=False) as group:
            view = gr.Radio(list(VIEWS), value=VIEWS[0], label="Clip as")
            seconds = gr.Slider(1, longest, min(10, longest), step=1, label="First seconds of the clip")
            every = gr.Slider(1, 30, 1, step=1, label="Every n-th frame")
            smooth = gr.Slider(0, 0.95, 0, step=0.05, label="Smoothing over time")
            with gr.Row():
                begin = gr.Button("Predict the clip", variant="primary", elem_id="predict")
                stop = gr.Button("Stop")
        return group, view, seconds, every, smooth, begin, stop

    def _browse(self, blocks: gr.Blocks) -> None:
        names = list(self.choices.runs)
        with gr.Row():
            run = gr.Dropdown(names, value=names[0], label="Run", visible=len(names) > 1, scale=2, min_width=200)
            view = gr.Radio(list(runs.VIEWS), value=runs.VIEWS[0], label="Show", scale=3, min_width=280, elem_id="view")
            stage = gr.Dropdown([], label="Stage", visible=False, scale=1, min_width=220, elem_id="stage")
            count = gr.Slider(1, 12, 3, step=1, label="Images", visible=False, scale=1, min_width=220)
            again = gr.Button("Read again", size="sm", scale=0, min_width=110)
        shown = gr.HTML(elem_id="run", apply_default_css=False)
        all_of_it = [run, view, stage, count]
        chosen = {"fn": self.chosen, "inputs": all_of_it, "outputs": [stage, count, shown]}
        waiting = {"fn": self.waited, "inputs": all_of_it, "outputs": [shown]}
        changes = [run.input, view.input, stage.input, count.release, again.click, blocks.load]
        gr.on(changes, **chosen, **PRIVATE).success(**waiting, **TURN, **PRIVATE)

    def seen(self, file: str | None, models: list[str], more: list[str], style: str) -> tuple[Any, ...]:
        """Predictions for an upload, or for a clip's first frame; and whether to show the controls for clips."""
        hidden = gr.update(value=None, visible=False)
        if file is None or not models:
            return EMPTY if file is None else NO_MODEL, gr.update(visible=False), hidden, hidden
        try:
            image = read_upload(self._own(file))
            chosen = self._chosen(models)
            stylizer = None if style == NO_STYLE else (style, self.networks.stylizer(style))
            html = look(image, chosen, Wanted("confidence" in more, "attention" in more), stylizer)
        except SegadaptError as error:
            return wrong(error), gr.update(visible=False), hidden, hidden
        return html, gr.update(visible=is_video(file)), hidden, hidden

    def _chosen(self, models: list[str]) -> list[Segmenter]:
        """The networks of those names, in the order in which the page lists them, whichever was clicked first."""
        order = list(self.choices.segmenters)
        listed = sorted(models, key=lambda name: order.index(name) if name in order else len(order))
        return [self.networks.segmenter(name) for name in listed]

    def _own(self, file: str) -> Path:
        """An upload's path. A request may name any path, and gradio also accepts the working and temporary folders.

        Raises UsageError for a file that was not uploaded.
        """
        path = Path(file).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise UsageError("was not uploaded", where=path.name, remedy="Drop the file anew.")
        return path

    def sample(self, models: list[str], taken: int) -> tuple[str, int]:
        """Another image of the target, of the first chosen model's run."""
        owners = [run for run in self.choices.runs for name in models if name in self.choices.of_run(run).values()]
        try:
            image = runs.sample_image(self.choices, next(iter(owners), next(iter(self.choices.runs))), taken)
        except (SegadaptError, OSError) as error:
            raise gr.Error("The target's images are not on this machine.", print_exception=False) from error
        return str(shutil.copy(image, new_folder(self.folder))), taken + 1

    def clip(
        self,
        file: str | None,
        models: list[str],
        view: Any,
        strength: float,
        seconds: float,
        every: float,
        smooth: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),
    ) -> tuple[Any, Any]:
        """Predict a clip, up to its end or the requested end, or until it is stopped."""
        if file is None or not models:
            raise gr.Error("Drop a clip and choose a model.", print_exception=False)
        stop = self._stops.setdefault(str(request.session_hash), threading.Event())
        stop.clear()
        options = ClipOptions(view, strength / 100, min(seconds, self.limits.seconds), int(every), smooth)

        def tell(done: int, of: int | None) -> None:
            progress((done, of), unit="frames")

        try:
            chosen = self._chosen(models)
            made = predict_clip(self._own(file), new_folder(self.folder), chosen, options, tell, stop.is_set)
        except SegadaptError as error:
            return gr.update(value=None, visible=False), gr.update(value=in_a_line(error), visible=True)
        there = made.file is not None
        return gr.update(value=str(made.file) if there else None, visible=there), gr.update(
            value=made.said, visible=True
        )

    def stop(self, request: gr.Request) -> None:
        """Stop the clip of this session."""
        self._stops.setdefault(str(request.session_hash), threading.Event()).set()

    def stop_all(self) -> None:
        """Stop all clips, since the process waits for its threads."""
        for stop in list(self._stops.values()):
            stop.set()

    def _left(self, request: gr.Request) -> None:
        """The page was closed, so its clip is stopped."""
        stop = self._stops.pop(str(request.session_hash), None)
        if stop is not None:
            stop.set()

    def chosen(self, run: str, view: Any, stage: str | None, count: float) -> tuple[Any, Any, Any]:
        """The choices in a view of a run; and the view itself, if it needs no network."""
        try:
            record = runs.open_run(self.choices, run)
        except SegadaptError as error:
            return gr.update(visible=False), gr.update(visible=False), wrong(error)
        names = runs.stages_of(record, view)
        stage = stage if stage in names else runs.first_stage(record, view)
        html = "" if view in runs.WITH_NETWORKS else self._run(run, view, stage, count)
        stages = gr.update(choices=names, value=stage, visible=bool(names))
        return stages, gr.update(visible=view in runs.WITH_IMAGES), html

    def waited(self, run: str, view: Any, stage: str | None, count: float) -> Any:
        """A view that needs networks, when its turn comes."""
        return self._run(run, view, stage, count) if view in runs.WITH_NETWORKS else gr.skip()

    def _run(self, run: str, view: Any, stage: str | None, count: float) -> str:
        try:
            return runs.run_html(self.choices, self.networks, run, view, stage, int(count))
        except SegadaptError as error:
            return wrong(error)


def in_a_line(error: SegadaptError) -> str:
    """An error message, without the server's folders."""
    return re.sub(r"(?<![\w.])(~|\.{0,2})/[^\s:]*/", "", str(error))


def wrong(error: SegadaptError) -> str:
    """An error message, in place of a result."""
    return f'<div class="empty wrong">{escape(in_a_line(error))}</div>'


def style() -> dict[str, Any]:
    """Styles: those of a run's page, for its sections, and the app's own; only fonts of the machine."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    theme = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"])
    own = Path(__file__).with_name("app.css").read_text(encoding="utf-8")
    within = page.styles().replace(":root", "&").replace("\nbody {", "\n.body {")
    return {"theme": theme, "head": f"<style>.report {{ {within} }}\n{own}</style>"}

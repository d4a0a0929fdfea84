"""TensorBoard: event files in the stage's own folder."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch.utils.tensorboard.writer import SummaryWriter

from segadapt.tracking.tracker import Identity, Kind, Line, Pictures, Subject, numbers, step_of

FOLDER = "tensorboard"


class TensorBoard:
    """What an interrupted training wrote after the step that it resumes from is hidden."""

    def __init__(self, subject: Subject, known: Identity | None, from_step: int) -> None:
        folder = subject.folder / FOLDER
        # Each batch of lines was flushed when written, so the files are complete up to there.
        there = from_step if any(folder.glob("events.*")) else 0
        self.reached: dict[Kind, int] = {"step": there, "evaluation": there, "pictures": there}
        self._writer = SummaryWriter(str(folder), purge_step=from_step + 1)
        self.identity: Identity = {"folder": FOLDER}
        if known is None:
            self._writer.add_text("recipe", f"```yaml\n{subject.recipe}\n```", 0)

    def lines(self, lines: Sequence[Line]) -> None:
        for line in lines:
            for name, value in numbers(line).items():
                self._writer.add_scalar(name, value, step_of(line))
        self._writer.flush()

    def pictures(self, step: int, pictures: Pictures) -> None:
        for name, picture in pictures.items():
            self._writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        self._writer.flush()

    def final(self, step: int, scores: Mapping[str, float]) -> None:
        for name, value in scores.items():
            self._writer.add_scalar(name, value, step)

    def close(self, finished: bool) -> None:
        self._writer.close()

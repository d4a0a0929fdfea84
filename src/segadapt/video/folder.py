"""Predicted frames as pictures in a folder, in the formats of images."""

from collections.abc import Sequence
from pathlib import Path

from segadapt.data.label_spaces import LabelSpace
from segadapt.inference.formats import Format, output_paths, picture
from segadapt.inference.streams import save_png
from segadapt.video.source import Frame, Picture, Sound


class FolderSink:
    """Writes the labels of each frame as PNG, whole or not at all; existing files stay, unless `overwrite`."""

    def __init__(self, folder: Path, formats: Sequence[Format], space: LabelSpace, overwrite: bool = False) -> None:
        self.folder, self.formats, self.space, self.overwrite = folder, formats, space, overwrite
        self.written = 0

    def begin(self, frame: Frame) -> None:
        """Nothing: each picture has its own size."""

    def wants(self, frame: Frame) -> bool:
        """Whether a picture of it is missing."""
        paths = output_paths(self.folder, frame.place, self.formats)
        return self.overwrite or not all(path.is_file() for path in paths)

    def compose(self, frame: Frame, labels: Sequence[Picture]) -> int:
        """Write the pictures of a frame; threads may do it."""
        for path, form in zip(output_paths(self.folder, frame.place, self.formats), self.formats, strict=True):
            save_png(path, picture(labels[0], self.space, form, frame.image))
        return 1

    def write(self, made: int) -> None:
        """Count them."""
        self.written += made

    def write_sound(self, sound: Sound) -> None:
        """Pictures have none."""

    def close(self) -> None:
        """Nothing is open."""

"""Frames per second of `segadapt predict` on a video: reading, network and writing by themselves, and all of it.

    python benchmarks/video.py [--frame 1280x640] [--size 512x256] [--network NAME] [--view overlay] [--models 2]

The video is one that this script makes from generated pictures, over which the view moves; the network is fresh. *One
after another* is what a loop without threads would reach: 1 / (1 / reading + 1 / network + 1 / writing).
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from segadapt.cli.data import parse_size
from segadapt.data.label_spaces import load_label_space
from segadapt.devices import choose_device
from segadapt.inference.predictor import Predictor
from segadapt.inference.streams import readers
from segadapt.models.networks import build
from segadapt.sample import sample_pair
from segadapt.video.flow import Running, play
from segadapt.video.panels import Panels, View, parse_view
from segadapt.video.reading import VideoSource
from segadapt.video.smoothing import FrameLabels
from segadapt.video.source import Frame
from segadapt.video.writing import VideoSink

SPACE = load_label_space("cityscapes19")


@dataclass(frozen=True)
class Case:
    """What is timed."""

    frame: tuple[int, int]  # (W, H) of the video
    size: tuple[int, int]  # (W, H) of the networks' input
    network: str = "deeplab_small"
    view: View = "overlay"
    models: int = 1
    frames: int = 120
    device: str = "auto"
    precision: Any = "fp32"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame", default="1280x640", help="of the video")
    parser.add_argument("--size", default="512x256", help="of the networks' input")
    parser.add_argument("--network", default="deeplab_small")
    parser.add_argument("--view", default="overlay")
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    given = parser.parse_args()
    frame, size = parse_size(given.frame, "--frame"), parse_size(given.size, "--size")
    case = Case(
        frame, size, given.network, parse_view(given.view), given.models, given.frames, given.device, given.precision
    )
    print("| part | frames per second | CPU time of a frame, ms |")
    print("|---|---|---|")
    for part, (seconds, busy) in costs(case).items():
        print(f"| {part} | {1 / seconds:.1f} | {1000 * busy:.1f} |")


def costs(case: Case) -> dict[str, tuple[float, float]]:
    """Part -> seconds that a frame takes, and seconds of all cores together, which other programs disturb less."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_drive(Path(folder) / "drive.mp4", case.frame, case.frames)
        models = [FrameLabels(_predictor(case)) for _ in range(case.models)]
        models[0](frames_of(path)[0])  # what is done once
        frames = frames_of(path)
        found: list[list[Any]] = []
        parts = {
            "reading": _timed(lambda: frames_of(path)),
            "network": _timed(lambda: found.extend(_labels(models, frames))),
            "writing": _timed(lambda: _write(case, Path(folder), path, frames, found)),
        }
        seconds, busy = (sum(cost[kind] for cost in parts.values()) for kind in (0, 1))
        parts["one after another"] = seconds, busy
        parts["all of it"] = _timed(lambda: _all(case, Path(folder), path, models))
    return {part: (seconds / case.frames, busy / case.frames) for part, (seconds, busy) in parts.items()}


def write_drive(path: Path, size: tuple[int, int], frames: int) -> Path:
    """A video that moves over a generated picture, one and a half times as large."""
    width, height = size
    image, _ = sample_pair("cityscapes", "train", 0)
    large = np.asarray(Image.fromarray(np.asarray(image)).resize((width * 3 // 2, height * 3 // 2)))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(25), options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            left, top = (side // 2 * number // frames for side in size)
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(large[top : top + height, left : left + width]), format="rgb24"
            )
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def frames_of(path: Path) -> list[Frame]:
    """All frames of a video."""
    source = VideoSource(str(path))
    found = [item for item in source.items() if isinstance(item, Frame)]
    source.close()
    return found


def _predictor(case: Case) -> Predictor:
    torch.manual_seed(0)
    network = build(case.network, classes=len(SPACE)).eval()
    return Predictor(network, case.size, device=choose_device(case.device), precision=case.precision)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of all cores."""
    begun, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - busy


def _labels(models: list[FrameLabels], frames: list[Frame]) -> list[list[Any]]:
    """Of each frame the labels of each model, on the host."""
    return [[model(frame).cpu().numpy() for model in models] for frame in frames]


def _sink(case: Case, path: Path, source: VideoSource) -> VideoSink:
    panels = Panels(case.view, [SPACE] * case.models, [f"model {number}" for number in range(case.models)])
    return VideoSink(path, ".mp4", source, panels)


def _write(case: Case, folder: Path, path: Path, frames: list[Frame], labels: list[list[Any]]) -> None:
    """Panels and encoding alone, in one thread beside the encoder's own."""
    source = VideoSource(str(path))
    sink = _sink(case, folder / "written.mp4", source)
    for frame, found in zip(frames, labels, strict=True):
        sink.begin(frame)
        sink.write(sink.compose(frame, found))
    sink.close()
    source.close()


def _all(case: Case, folder: Path, path: Path, models: list[FrameLabels]) -> None:
    """What the command does."""
    source = VideoSource(str(path))
    sink = _sink(case, folder / "all.mp4", source)
    play(source, models, sink, Running(readers(models[0].predictor.device)))


if __name__ == "__main__":
    main()

"""The labels of a video's frames from one model, optionally smoothed over time.

Predicted independently, frames flicker where classes are about equally likely. The smoothed
probabilities of frame t are

    s(t) = w · s(t − 1) + (1 − w) · p(t),    s(0) = p(0)

with the softmax outputs p of the network and a weight w in 0 … 1: an exponential moving average, pixel by pixel, which
ignores motion. After n frames a change has taken effect by 1 − wⁿ, so labels of moving objects lag behind by about
w / (1 − w) frames.
"""

import torch
from torch import Tensor

from segadapt.inference.predictor import Predictor
from segadapt.video.source import Frame, Picture

TINY = 1e-30
"""A floor for probabilities, never the largest; the logarithm of 0 would spread when upsampled."""


class FrameLabels:
    """Train ids (H, W) of one frame after another, each at its own size, on the predictor's device.

    A single whole view is averaged at the network's native stride, and its logarithm upsampled: w = 0 gives the labels
    without smoothing. Several views, or windows, are averaged at the network's input size.
    """

    def __init__(self, predictor: Predictor, weight: float = 0.0) -> None:
        self.predictor, self.weight = predictor, weight
        self._average: Tensor | None = None

    def __call__(self, frame: Frame) -> Tensor:
        """uint8 (H, W). Frames must be given in order."""
        image = frame.inputs.get(self.predictor.size, frame.image)  # otherwise the predictor resizes it
        size = (frame.image.shape[1], frame.image.shape[0])
        if self.weight == 0:
            return self.predictor.label_map(image, size)
        with torch.inference_mode():
            now = self._probabilities(image)
            before = self._average
            self._average = now if before is None else before.lerp_(now, 1 - self.weight)
            return self.predictor.label_map_from(self._average.clamp_min(TINY).log(), size)

    def forget(self) -> None:
        """Reset: the next frame belongs to another video."""
        self._average = None

    def _probabilities(self, image: Picture) -> Tensor:
        """float32 (1, C, h, w) on the device."""
        predictor = self.predictor
        if len(predictor.views) == 1 and predictor.window is None:
            return predictor.logits(image).softmax(dim=1)
        found = torch.from_numpy(predictor.probabilities(image, predictor.size))
        return found[None].to(predictor.device)

"""Scores of a model on data that your own program reads: python evaluate_own_loader.py MODEL IMAGES LABELS

MODEL is what `segadapt.load` takes. IMAGES and LABELS are two folders with files of the same names; the labels hold the
train ids of the model's label space, 255 ignored. Any other iterable of (image, labels) does as well: a DataLoader, a
generator over a video, pairs from a data base.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import segadapt


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Your own data set: RGB tensors (3, H, W) in 0 … 1, as torchvision's ToTensor makes them, and ids (H, W)."""

    def __init__(self, images: Path, labels: Path) -> None:
        self.labels = sorted(labels.glob("*.png"))
        self.images = [next(images.glob(f"{path.stem}.*")) for path in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = np.asarray(Image.open(self.images[index]).convert("RGB"), np.float32) / 255
        labels = np.asarray(Image.open(self.labels[index]), np.int64)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels)


def main(model: str, images: str, labels: str) -> None:
    loader: DataLoader[Any] = DataLoader(Pairs(Path(images), Path(labels)))
    scores = segadapt.evaluate(model, loader)
    print(scores)
    worst = sorted(zip(scores.record["per_image"]["miou"], range(scores.images), strict=True))[:3]
    print("worst images:", ", ".join(f"number {number} with {miou:.1f}" for miou, number in worst))


if __name__ == "__main__":
    main(*sys.argv[1:])

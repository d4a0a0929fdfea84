"""Did adaptation help, where nothing is labelled? python compare_without_labels.py BEFORE AFTER IMAGES

BEFORE and AFTER are what `segadapt.load` takes, such as the stages runs/mine/source_only and runs/mine/adapt; IMAGES is
a folder of target images. Prints how sure each model is, how many classes it uses, and where the two differ. The images
that they agree least about are drawn to compared/. docs/first-hour.md says how to read all this.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import segadapt


def main(before: str, after: str, images: str, most: str = "32") -> None:
    models = [segadapt.load(before), segadapt.load(after)]
    classes = models[0].label_space.classes
    shares, sure, differ = np.zeros((2, len(classes))), np.zeros(2), list[tuple[float, Path, NDArray[np.uint8]]]()
    paths = [path for path in sorted(Path(images).rglob("*")) if path.suffix.lower() in (".jpg", ".png")]
    paths = paths[:: max(1, len(paths) // int(most))]
    for path in paths:
        found = [model.predict(path) for model in models]
        for number, one in enumerate(found):
            shares[number] += np.bincount(one.labels.ravel(), minlength=len(classes)) / one.labels.size / len(paths)
            sure[number] += one.probabilities.max(axis=0).mean() / len(paths)
        beside = np.concatenate([np.asarray(one.overlay()) for one in found], axis=1)
        differ.append((float((found[0].labels != found[1].labels).mean()), path, beside))
    print(f"{'':<20}{'before':>10}{'after':>10}")
    print(f"{'confidence':<20}{sure[0]:>10.1%}{sure[1]:>10.1%}")
    print(f"{'classes in use':<20}{(shares[0] > 0.001).sum():>10}{(shares[1] > 0.001).sum():>10}")
    for name, one, other in zip(classes, *shares, strict=True):
        print(f"{name:<20}{one:>10.1%}{other:>10.1%}")
    print(f"they differ in {np.mean([share for share, _, _ in differ]):.1%} of the pixels")
    Path("compared").mkdir(exist_ok=True)
    for share, path, beside in sorted(differ, key=lambda one: -one[0])[:5]:
        Image.fromarray(beside).save(Path("compared") / f"{path.stem}.jpg")
        print(f"compared/{path.stem}.jpg: {share:.0%} of the pixels, before on the left, after on the right")


if __name__ == "__main__":
    main(*sys.argv[1:])

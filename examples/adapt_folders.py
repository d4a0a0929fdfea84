"""Two folders to an adapted model and its predictions.

python adapt_folders.py SOURCE TARGET OUT [CLASSES] -> OUT/report.html, OUT_predictions/*.jpg

SOURCE has images with labels, TARGET images; CLASSES are names in the order of the label ids (road,car), or with them
(0=ground,255=crack). Without them, names are made up.
"""

import sys
from pathlib import Path

import segadapt


def main(source: str, target: str, out: str, classes: str | None = None, steps: str | None = None) -> None:
    model = segadapt.adapt(source, target, classes, out=out, steps=None if steps is None else int(steps))
    print(f"{model.path}: {', '.join(model.label_space.classes)}")
    predictions = Path(f"{out}_predictions")
    predictions.mkdir(exist_ok=True)
    images = [path for path in sorted(Path(target).rglob("*")) if path.suffix.lower() in (".jpg", ".png")]
    for image in images[:8]:
        model.predict(image).save(predictions / f"{image.stem}.jpg", format="overlay")
    print(f"look at {out}/report.html and {predictions}")


if __name__ == "__main__":  # loader processes import this file again
    main(*sys.argv[1:])

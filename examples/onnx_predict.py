"""Colour images by an exported model: python onnx_predict.py model.onnx street.jpg … -> street_colour.png beside each.

Needs onnxruntime, numpy and Pillow alone. Pixel format, resizing and upsampling are in the model.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, *images: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
    about = session.get_modelmeta().custom_metadata_map
    classes, colors = json.loads(about["classes"]), np.array(json.loads(about["colors"]), np.uint8)
    for name in images:
        image = np.asarray(ImageOps.exif_transpose(Image.open(name)).convert("RGB"))  # (H, W, 3) uint8
        labels = session.run(["labels"], {"images": image[None]})[0][0]  # (H, W) uint8
        path = Path(name)
        Image.fromarray(colors[labels]).save(path.with_name(f"{path.stem}_colour.png"))
        shares = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
        found = sorted(zip(shares, classes, strict=True), reverse=True)
        print(name, ", ".join(f"{share:.0%} {label}" for share, label in found if share >= 0.01))


if __name__ == "__main__":
    main(*sys.argv[1:])

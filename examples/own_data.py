"""A data set with its own layout: the rig's camera/train/0001_rgb.png beside truth/train/0001_ids.png.

Its ids are those of `harbour.yaml`, the label space beside this file: use both with `label_space: harbour.yaml`.
"""

from segadapt.plugin import Layout, register_layout

register_layout(
    Layout(
        "rig",  # its name in recipes: `layout: rig`
        "our own camera: camera/SPLIT/*_rgb.png, truth/SPLIT/*_ids.png",
        images="camera/{split}",
        labels="truth/{split}",
        encoding="survey",  # how the label files encode classes: one of the label space's encodings
        splits=("train", "val"),
        image_ending="_rgb",
        label_ending="_ids",
    )
)

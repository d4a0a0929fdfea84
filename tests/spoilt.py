"""A recipe, its tiny data and a finished run of it, for a test to spoil, and the commands that then fail."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from layouts import write_layout
from segadapt.config.load import load_recipe
from segadapt.data.label_spaces import load_label_space
from segadapt.data.settings import DomainSettings, open_domain
from segadapt.data.tools.prepare import plan
from segadapt.files import temporary_beside
from segadapt.pipeline.run import run_recipe

SIZE = (64, 48)
FULL = Path("/dev/full")
"""A file of Linux on which every write meets a full disk."""

Tree = dict[str, Any]


class World:
    """Paths in one folder. Methods that spoil something give the world back, those for commands their arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.source, self.target, self.run = folder / "gta5", folder / "cityscapes", folder / "done"
        self.image, self.label = self.source / "images/00001.png", self.source / "labels/00001.png"
        self.recipe, self.list, self.space = folder / "recipe.yaml", folder / "list.txt", folder / "space.yaml"
        self.stage = self.run / "baseline"
        self.model, self.metrics = self.stage / "model.safetensors", self.stage / "metrics.jsonl"
        self.checkpoint = self.stage / "checkpoints/step_00000001.pt"

    @classmethod
    def make(cls, folder: Path) -> "World":
        """Data, recipe, and a finished run without its report."""
        world = cls(folder)
        write_layout(world.source, "gta5", SIZE)
        write_layout(world.target, "cityscapes", SIZE)
        for kind in ("leftImg8bit", "gtFine"):
            (world.target / kind / "train").rename(world.target / kind / "val")  # all that a baseline asks for
        world.write(world.tree())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("segadapt.pipeline.run_page.write_report", lambda *_, **__: None)
            run_recipe(load_recipe(str(world.recipe), []), world.run)
        return world

    def copy(self, folder: Path) -> "World":
        """The same in another folder. For speed, files of the run are links: unlink before you write into one."""
        world = World(folder)
        shutil.copytree(self.source, world.source)
        shutil.copytree(self.target, world.target)
        shutil.copytree(self.run, world.run, copy_function=os.link)
        world.write(world.tree())
        return world

    def tree(self) -> Tree:
        """The recipe as plain data."""
        training = {"network": "deeplab_small", "size": list(SIZE), "steps": 1, "lr": 1e-3, "evaluate_every": 0}
        return {
            "data": {
                "source": {"layout": "gta5", "root": str(self.source), "holdout": 1},
                "target": {"layout": "cityscapes", "root": str(self.target)},
            },
            "stages": {"baseline": {"method": "source_only", **training}},
            "runtime": {"device": "cpu", "threads": 1},
        }

    def write(self, tree: Tree) -> "World":
        """Write the recipe's file."""
        self.recipe.write_text(yaml.safe_dump(tree, sort_keys=False))
        return self

    def set(self, **settings: object) -> "World":
        """Settings of the stage, in the file; None takes one away."""
        tree = self.tree()
        stage = {**tree["stages"]["baseline"], **settings}
        tree["stages"]["baseline"] = {key: value for key, value in stage.items() if value is not None}
        return self.write(tree)

    def cut(self, path: Path) -> "World":
        """A file that ends too early."""
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content[: len(content) // 2])
        return self

    def paint(self, path: Path, picture: Image.Image) -> "World":
        """Another picture in place of a file."""
        picture.save(path)
        return self

    def paint_ids(self, value: int, size: tuple[int, int] = SIZE) -> "World":
        """The label full of one id."""
        return self.paint(self.label, Image.new("L", size, value))

    def paint_floats(self, path: Path) -> "World":
        """A grey picture of 32-bit floating-point values, under whatever suffix."""
        Image.fromarray(np.ones((SIZE[1], SIZE[0]), np.float32)).save(path, "TIFF")
        return self

    def paint_16_bits(self, path: Path) -> "World":
        """A grey picture of 16 bits."""
        return self.paint(path, Image.fromarray(np.full((SIZE[1], SIZE[0]), 3000, np.uint16)))

    def lose_result(self) -> "World":
        """The finished run without its model: the stage resumes from its checkpoint."""
        self.model.unlink()
        return self

    def lose_checkpoint(self) -> "World":
        """The same without its checkpoint: the stage begins anew."""
        self.checkpoint.unlink()
        return self.lose_result()

    def full_disk(self, path: Path) -> "World":
        """Writing `path` (through `segadapt.files`, in this process) meets a full disk."""
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary_beside(path).symlink_to(FULL)
        return self

    def full_disk_for_lines(self, path: Path) -> "World":
        """Lines that are added to `path` meet a full disk."""
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(FULL)
        return self

    @property
    def store(self) -> Path:
        """Where `prepare` puts copies of the source's images."""
        settings = DomainSettings(layout="gta5", root=self.source)
        dataset = open_domain(settings, load_label_space("cityscapes19"), "train", (32, 24))
        return plan(dataset, "gta5", self.out).stores[0].folder

    def saved(self, name: str, content: object) -> Path:
        """A file of `torch.save`."""
        torch.save(content, self.folder / name)
        return self.folder / name

    def train(self, *overrides: str, out: Path | None = None) -> list[str]:
        """Run the recipe in a new folder."""
        return ["run", str(self.recipe), *overrides, "--out", str(out or self.out)]

    def go_on(self, *overrides: str) -> list[str]:
        """Run the recipe in the folder of the run that is there."""
        return self.train(*overrides, out=self.run)

    def train_list(self, content: bytes) -> list[str]:
        """Train on the images of a list."""
        self.list.write_bytes(content)
        return self.train(f"data.source.train_list={self.list}")

    def write_space(self, content: str | Tree) -> str:
        """The path of a label space of one's own."""
        self.space.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(self.space)

    def train_space(self, content: str | Tree) -> list[str]:
        """Train in a label space of one's own."""
        return self.train(f"label_space={self.write_space(content)}")

    def predict(self, model: Path, *options: str, image: Path | None = None, out: Path | None = None) -> list[str]:
        """Predict an image with a model."""
        return ["predict", str(model), str(image or self.image), "--out", str(out or self.out), *options]

    def evaluate(self, *options: str) -> list[str]:
        """Score the finished run's model on the source."""
        data = ("--layout", "gta5", "--root", str(self.source), "--split", "train")
        return ["evaluate", str(self.model), *data, *options]

    def prepare(self) -> list[str]:
        """Prepare the source, in this process."""
        place = ("--prepared-root", str(self.out), "--workers", "1")
        return ["data", "prepare", "gta5", str(self.source), "--size", "32x24", *place]


Spoil = Callable[[World], list[str]]
"""Spoils a world and gives the arguments of the command that must tell it."""

"""Everything of segadapt that reads what somebody else may have written, as targets of `fuzzing`."""

import io
import json
import pickle
import shutil
import struct
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from PIL import Image
from safetensors.torch import save
from torch import nn

from fuzzing import JSON_BITS, WORDS, YAML_BITS, Reader, changed, json_files, mutated, patched, yaml_files
from layouts import pack, write_layout
from scored_runs import blocks, opened, paint, write_run
from segadapt.cli.compare import as_csv
from segadapt.config.load import load_recipe
from segadapt.config.recipe_files import shipped_recipes
from segadapt.data.cache import with_copies
from segadapt.data.catalog import LAYOUTS
from segadapt.data.dataset import file_size
from segadapt.data.label_spaces import load_label_space
from segadapt.data.reading import LabelReader, read_rgb
from segadapt.data.splits import select
from segadapt.data.tools.prepare import plan
from segadapt.engine.checkpoints import read, restore
from segadapt.engine.recorder import Recorder
from segadapt.errors import SegadaptError, UsageError
from segadapt.evaluation.label_free import label_free_agreement
from segadapt.inference.model import find_models
from segadapt.methods.method import Method
from segadapt.models.segmenter import IMAGENET
from segadapt.pipeline.stage_folder import StageFolder
from segadapt.plain_data import read_yaml
from segadapt.report import tables
from segadapt.report.compare import compare
from segadapt.report.mistakes import confused_pairs, difference_table
from segadapt.report.page import write_report
from segadapt.report.records import read_run
from segadapt.report.stages import overview
from segadapt.sample import write_sample
from segadapt.weights import starts
from segadapt.weights.checkpoint_files import HEADER, identify
from segadapt.weights.saved import load_any, load_generator

COSTLY = 0.1
"""The share of readers of images and checkpoints."""
GIVEN = ["data.source.root=a", "data.target.root=b"]
STAGE = StageFolder("adapt", Path(), {"settings.lr": 0.1}, "model.safetensors")


def readers(home: Path) -> list[Reader]:
    """All targets; what is whole is made below `home`, with `scored_runs`' network, which must be registered."""
    return [*_settings(), *_runs(home), *_data(home), *_weights(home)]


def _put(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


# recipes, overrides, label spaces


def _settings() -> list[Reader]:
    demo = read_yaml(shipped_recipes()["demo"], "recipe")
    small = {"base": "sean_gta5_cityscapes", "stages": {"sean": {"start": "a.pth", "size": [512, 256]}}}
    recipes = [demo, small, small, small, {**demo, "stages": {"s": demo["stages"]["source_only"]}}]
    paths = sorted(Path(load_label_space.__globals__["FOLDER"]).glob("*.yaml"))
    colours = [{"name": name, "color": [k, 2, 3], "ids": {"mine": k}} for k, name in enumerate(("road", "car"))]
    spaces = [*(read_yaml(path, "space") for path in paths), {"name": "two", "classes": colours}]

    def recipe(content: bytes, folder: Path) -> object:
        return load_recipe(str(_put(content, folder / "recipe.yaml")), GIVEN)

    def overrides(content: bytes, folder: Path) -> object:
        text = content.decode(errors="surrogateescape").split("\n\n")
        return load_recipe("sean_gta5_cityscapes", [*GIVEN, "stages.sean.start=a.pth", *text])

    def space(content: bytes, folder: Path) -> object:
        return load_label_space(_put(content, folder / "space.yaml"))

    return [
        Reader("recipes", yaml_files(recipes), recipe),
        Reader("overrides", _overrides(), overrides),
        Reader("label spaces", yaml_files(spaces), space),
    ]


@st.composite
def _overrides(draw: DrawFn) -> bytes:
    keys = ["seed", "base", "stages", "stages.sean", "stages.sean.lr", "stages.sean.size", "data.source.root", "a.b"]
    values = [*YAML_BITS, *WORDS, "{a: 1}", "[" * 5000]
    found = []
    for _ in range(draw(st.integers(1, 3))):
        odd = st.sampled_from(["", ".".join("a" * 5000), "stages.???.lr"]) | st.text(max_size=8)
        key = draw(st.one_of(st.sampled_from(keys), st.sampled_from(keys), odd))
        good = st.sampled_from(["1", "1e-3", "[512, 256]", "null", "here"])
        text = draw(st.one_of(good, good, st.sampled_from(values), st.text(max_size=8)))
        found.append(f"{key}{draw(st.sampled_from(['=', '=', '=', '', '==']))}{text}")
    return "\n\n".join(found).encode(errors="surrogatepass")


# run folders


def _runs(home: Path) -> list[Reader]:
    data, space = home / "painted", load_label_space("cityscapes19")
    write_painted(data)
    write_run(home / "run", space, data)
    stage = home / "run" / "adapt"
    (stage / "stage.json").write_text(json.dumps({"state": "done", "content": {"a": 1}, "decided": {"steps": 20}}))
    share = {"road": 0.5, "car": None}
    result = {"images": 3, "labelled": 0.4, "kept": share, "share": {"road": 0.5, "car": 0.1}, "thresholds": share}
    (stage / "result.json").write_text(json.dumps(result))
    (stage / "cost.json").write_text(json.dumps({"seconds": 12.5, "memory": 2**30, "device_memory": None}))
    names = ("evaluation.json", "stage.json", "result.json", "cost.json")
    whole = {name: (stage / name).read_text() for name in names}
    for name in ("baseline", "bound"):
        (home / "run" / name / "metrics.jsonl").unlink()  # curves take long
    rows = [{"step": 1, "loss/total": 0.5, "time/step": 0.1}, {"step": 1, "val/target_miou": 30.0, "val/infomax": 0.2}]
    lines = "".join(f"{json.dumps(row | {'step': step})}\n" for step in range(5) for row in rows)
    recipe = (home / "run" / "recipe.yaml").read_text()
    contents = st.one_of(
        *(st.tuples(st.just(name), json_files([json.loads(text)])) for name, text in whole.items()),
        st.tuples(st.just("metrics.jsonl"), patched(lines, JSON_BITS)),
        st.tuples(st.just("recipe.yaml"), yaml_files([yaml.safe_load(recipe)])),
    ).map(lambda named: named[0].encode() + b"\n" + named[1])

    def spoilt(content: bytes, folder: Path) -> Path:
        """A run with this content in one of its files."""
        name, _, text = content.partition(b"\n")
        run = folder / "run"
        if not run.is_dir():
            shutil.copytree(home / "run", run)
        for other, whole_text in {**whole, "metrics.jsonl": lines}.items():
            (run / "adapt" / other).write_text(whole_text)
        (run / "recipe.yaml").write_text(recipe)
        place = run if name == b"recipe.yaml" else run / "adapt"
        (place / name.decode()).write_bytes(text)
        return run

    def all_tables(content: bytes, folder: Path) -> object:
        run = spoilt(content, folder)
        stage = replace(STAGE, folder=run / "adapt")
        stage.state(), stage.changes(), find_models(run), label_free_agreement(run / "adapt")
        Recorder(run / "adapt" / "metrics.jsonl", writes=True, from_step=10).close()
        record = read_run(run)
        tables.class_table(record, space)
        tables.label_free_table(record)
        tables.kept_table(record.stages[0].result, space)
        for answer in record.compared():
            confused_pairs(record, answer, space), difference_table(record, answer, space)
        with suppress(UsageError):  # where nothing has scores
            as_csv(compare([record]))
        return overview(record) + tables.summary_table(record)

    def report(content: bytes, folder: Path) -> object:
        return write_report(spoilt(content, folder), images=0)

    return [Reader("run folders", contents, all_tables), Reader("reports", contents, report, share=COSTLY / 4)]


def write_painted(root: Path) -> None:
    """Two val images of Cityscapes in its own colours."""
    space = load_label_space("cityscapes19")
    paint(root, space, "val", [blocks(space, 0), blocks(space, 1)])


# image lists, prepared copies, images


def _data(home: Path) -> list[Reader]:
    write_layout(home / "gta5", "gta5", (16, 12))
    write_sample(home / "sample", train=1, val=1, size=(64, 64))
    dataset = opened(home / "painted", load_label_space("cityscapes19"))
    for store in plan(dataset, "cityscapes", home / "prepared").stores:
        store.folder.mkdir(parents=True)
    plan(dataset, "cityscapes", home / "prepared").run(1)
    copies = next((home / "prepared").glob("*images*")) / "copies.jsonl"
    facts, hashes = (home / "sample" / "sample.json").read_text(), {"resnet101_hub": "0" * 64}
    names = "# all\n00001.png\n./00002.png\nsub\\00010.png\n"

    def lists(content: bytes, folder: Path) -> object:
        return select(LAYOUTS["gta5"], home / "gta5", "train", {"train": _put(content, folder / "list.txt")})

    def notes(content: bytes, folder: Path) -> object:
        """What a sample, a prepared store and the weights folder write about themselves."""
        copies.write_bytes(content)
        with_copies(dataset, "cityscapes", home / "prepared")
        _quiet(lambda: starts.read_records(_put(content, folder / "sha256.json")))
        (home / "sample" / "sample.json").write_bytes(content)
        return write_sample(home / "sample", train=1, val=1, size=(64, 64))

    texts = patched(copies.read_text(), JSON_BITS) | json_files([json.loads(facts), hashes])
    return [
        Reader("image lists", patched(names, [*WORDS, "\n", "#", "\\", "../"]) | st.binary(max_size=40), lists),
        Reader("notes", texts, notes),
        Reader("images", _pictures(), _read_picture, share=COSTLY),
        Reader("data in zip files", _archives(home), _read_archive, share=COSTLY),
    ]


def _quiet(read: Any) -> None:
    try:
        read()
    except SegadaptError as error:
        assert str(error)


def _read_picture(content: bytes, folder: Path) -> object:
    space = load_label_space("cityscapes19")
    path = _put(content, folder / "a.png")
    for form in ("ids", "first_channel", "first_of_16_bit"):
        _quiet(lambda form=form: LabelReader(space, "cityscapes", form).read(path, (8, 8)))
    return read_rgb(path, (8, 8))


def _archives(home: Path) -> st.SearchStrategy[bytes]:
    """Data sets, each packed by one of four methods, with something wrong."""
    packed = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write_layout(home / f"packed {method}", "kitti", (16, 12))
        packed += [file.read_bytes() for file in pack(home / f"packed {method}", "kitti", method)]
    return st.sampled_from(packed).flatmap(mutated)


def _read_archive(content: bytes, folder: Path) -> object:
    pairs = LAYOUTS["kitti"].index(_put(content, folder / "a.zip"))
    for pair in pairs:
        _quiet(lambda pair=pair: (file_size(pair.image), read_rgb(pair.image, (8, 8))))
    return pairs


def _saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _pictures() -> st.SearchStrategy[bytes]:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    rgb, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    modes = [rgb, grey, rgb.convert("P"), rgb.convert("RGBA"), grey.convert("1"), grey.convert("LA")]
    whole = [_saved(one, "PNG") for one in [*modes, Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)]]
    whole += [
        _saved(rgb, "JPEG", exif=turned),
        _saved(rgb.convert("CMYK"), "JPEG"),
        _saved(rgb, "JPEG", progressive=True),
    ]
    whole += [_saved(rgb, "BMP"), _saved(rgb, "WEBP"), _saved(rgb, "PPM"), _saved(rgb, "GIF")]
    whole += [
        _saved(one, "TIFF", compression=kind) for one in (rgb, grey) for kind in ("raw", "tiff_lzw", "tiff_deflate")
    ]
    return st.one_of(
        st.sampled_from(whole).flatmap(mutated), st.sampled_from(whole[:7]).flatmap(_chunks), st.binary(max_size=60)
    )


@st.composite
def _chunks(draw: DrawFn, png: bytes) -> bytes:
    """A PNG with changed chunks whose check sums are right."""
    chunks, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    number = draw(st.integers(0, len(chunks) - 1))
    kind, body = chunks[number]
    match draw(st.sampled_from(["size", "body", "bomb", "gone", "twice", "text"])):
        case "size":
            width, height = (draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 20000, 13000])) for _ in range(2))
            chunks[0] = chunks[0][0], struct.pack(">II", width, height) + chunks[0][1][8:]
        case "bomb" if kind == b"IDAT":
            chunks[number] = kind, zlib.compress(bytes(draw(st.sampled_from([0, 10**5, 10**7]))))
        case "gone":
            del chunks[number]
        case "twice":
            chunks.insert(number, chunks[number])
        case "text":
            chunks.insert(1, (b"zTXt", b"a\0\0" + zlib.compress(bytes(draw(st.sampled_from([10, 10**7]))))))
        case _:
            chunks[number] = kind, draw(mutated(body))
    parts = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return png[:8] + b"".join(parts)


# models and checkpoints


def _weights(home: Path) -> list[Reader]:
    model = (home / "run" / "adapt" / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", model[:8])
    index = json.loads(model[8 : 8 + length])
    header = json.loads(index["__metadata__"][HEADER])
    generator = {"format": 2, "network": "style_transfer", "size": [8, 8]}

    def with_header(text: bytes) -> bytes:
        found = {**index, "__metadata__": {HEADER: text.decode(errors="replace")}}
        return _safetensors(json.dumps(found).encode(), model[8 + length :])

    headers = st.one_of(
        json_files([header, generator]).map(with_header),
        json_files([index]).map(lambda text: _safetensors(text, model[8 + length :])),
    )
    return [
        Reader("headers", headers, _read_weights),
        Reader("checkpoints", _checkpoints(model), _read_weights, share=COSTLY),
    ]


def _safetensors(index: bytes, tensors: bytes) -> bytes:
    return struct.pack("<Q", len(index)) + index + tensors


def _small() -> Method:
    """What `engine.checkpoints` needs of a method, with two kinds of optimizers."""
    network = nn.Linear(2, 2)
    network(torch.ones(1, 2)).sum().backward()
    optimizers = {"a": torch.optim.Adam(network.parameters()), "b": torch.optim.SGD(network.parameters(), 0.1, 0.9)}
    for optimizer in optimizers.values():
        optimizer.step()
    result = type("Result", (), {"pixels": IMAGENET})()
    found = type("Small", (), {"modules": {"network": network}, "optimizers": optimizers, "result": result})
    return cast(Method, found())


def _read_weights(content: bytes, folder: Path) -> object:
    path = _put(content, folder / "weights.pth")
    _quiet(lambda: restore(read(path), _small(), path))
    _quiet(lambda: load_generator(path))
    _quiet(lambda: load_any(path))
    return identify(path)


def _training() -> Any:
    method = _small()
    return {
        "format": 1,
        "step": 3,
        "modules": {name: module.state_dict() for name, module in method.modules.items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in method.optimizers.items()},
        "about": {"threads": 1, "pixels": "caffe"},
    }


def _checkpoints(model: bytes) -> st.SearchStrategy[bytes]:
    tensors = {"conv1_1.weight": torch.ones(2, 2), "conv5_3.weight": torch.ones(3)}
    contents = [_training(), tensors, {"state_dict": tensors, "epoch": 3}, [1], {"model": {}}]
    zips = [_torch(content) for content in contents]
    old = [_torch(content, _use_new_zipfile_serialization=False) for content in contents]
    spoilt = changed([_training()]).map(_torch)
    return st.one_of(
        spoilt,
        st.sampled_from(zips[:3]).flatmap(_rezipped),
        st.sampled_from([*zips, *old, model, save(tensors)]).flatmap(mutated),
        st.sampled_from([pickle.dumps({"a": 1}), b"PK\x05\x06" + bytes(18), b"<html>"]) | st.binary(max_size=60),
    )


def _torch(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


@st.composite
def _rezipped(draw: DrawFn, content: bytes) -> bytes:
    """A checkpoint of which the files in the zip have been changed, and perhaps packed."""
    file = io.BytesIO()
    packed = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(file, "w", packed) as other:
        chosen = draw(st.sampled_from(whole.namelist()))
        for name in whole.namelist():
            body = whole.read(name)
            if name == chosen:
                body = draw(st.one_of(mutated(body), st.just(b""), st.just(bytes(10**7))))
            other.writestr(name, body)
    return file.getvalue()

"""The web app in a headless Chromium, by real clicks."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio", reason="the extra is not installed: pip install 'segadapt[app]'")

from browser import browser
from scored_runs import ColourNetwork, blocks, paint, write_run
from segadapt.app import server
from segadapt.app.choices import find_choices
from segadapt.app.networks import Networks
from segadapt.app.temporary import temporary_folder
from segadapt.data.label_spaces import LabelSpace, load_label_space
from segadapt.models import networks

TEXT = "[...document.querySelectorAll({selector!r})].find(e => e.innerText.trim() == {text!r})"
HEADS = "[...document.querySelectorAll('#shown td:first-child')].map(e => e.innerText.trim()).slice(0, 2)"


def labelled(selector: str, text: str) -> str:
    """The element with this text."""
    return TEXT.format(selector=selector, text=text)


@pytest.fixture
def space() -> LabelSpace:
    return load_label_space("cityscapes19")


@pytest.fixture
def url(tmp_path: Path, space: LabelSpace, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The app about a run of three stages, as the verb serves it."""
    monkeypatch.setitem(networks.NETWORKS, "colour", ColourNetwork)
    paint(tmp_path / "data", space, "val", [blocks(space, seed) for seed in range(3)])
    write_run(tmp_path / "run", space, tmp_path / "data")
    choices = find_choices([tmp_path / "run"], pytest.fail)
    ready = threading.Event()
    ends: list[Callable[[], None]] = []
    with server.listening("127.0.0.1", 0) as bound, temporary_folder() as folder:
        from segadapt.app.interface import Interface, style

        limits = server.Limits(upload=1)
        page = Interface(choices, Networks(choices, torch.device("cpu")), limits, folder).blocks()
        app = server.web_app(page, limits, "127.0.0.1", style())
        thread = threading.Thread(target=server.serve, args=(app, bound, ready.set, ends.append))
        thread.start()
        try:
            assert ready.wait(60)
            yield server.address(bound, "127.0.0.1")
        finally:
            ends[0]()
            thread.join()


def test_a_picture_a_model_the_slider_and_the_run(url: str, tmp_path: Path, space: LabelSpace) -> None:
    for name, classes in (("two", ("road", "sky")), ("one", ("car",))):
        parts = [np.full((40, 80, 3), space.colors[space.classes.index(each)], np.uint8) for each in classes]
        Image.fromarray(np.concatenate(parts)).save(tmp_path / f"{name}.png")
    with browser(tmp_path / "profile") as tab:
        tab.open(url)
        tab.upload("#upload input[type=file]", tmp_path / "two.png")
        assert tab.wait(f"{HEADS}.length == 2 && {HEADS}") == ["road", "sky"]
        assert tab.evaluate("document.querySelector('#models input:checked').name") == "adapt"

        with tab.another(url) as other:  # somebody else, with another picture
            other.upload("#upload input[type=file]", tmp_path / "one.png")
            assert other.wait(f"{HEADS}.length == 1 && {HEADS}") == ["car"]
        assert tab.evaluate(HEADS) == ["road", "sky"]

        tab.click(labelled("#models label", "baseline"))
        tab.click(labelled("#more label", "attention"))
        captions = "[...document.querySelectorAll('#shown figcaption')].map(e => e.innerText)"
        tab.wait(f"{captions}.some(text => text.startsWith('adapt: attention'))")
        assert tab.evaluate("document.querySelectorAll('#shown .over').length") == 2

        tab.click("document.querySelector('#strength input[type=range]')", across=0.25)
        opacity = "Number(getComputedStyle(document.querySelector('#shown .over')).opacity)"
        assert 0.15 < tab.wait(f"{opacity} < 0.4 && {opacity}") < 0.35

        tab.click(labelled("button[role=tab]", "Browse a run"))
        tab.wait("document.querySelector('#run .card')")
        tab.click(labelled("#view label", "Curves"))
        tab.wait("document.querySelector('#run .curves svg')")
        tab.click(labelled("#view label", "Images"))
        tab.wait("document.querySelectorAll('#run .pictures img').length >= 8")
        for width in (390, 1280):  # nothing hangs over the side
            tab.size(width, 900)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert {urlsplit(one).netloc for one in tab.requested if one.startswith("http")} == {urlsplit(url).netloc}
        assert tab.errors == []
    assert_limits(url)


def assert_limits(url: str) -> None:
    """A page elsewhere that calls this machine by a name of its own is refused, and so is a file that is too large."""
    with urlopen(url) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    with pytest.raises(HTTPError, match="400"):
        urlopen(Request(url, headers={"Host": "evil.example"}))
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head + bytes(2**20 + 1) + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with pytest.raises(HTTPError, match="413"):
        urlopen(Request(f"{url}gradio_api/upload", data=body, headers=kind))

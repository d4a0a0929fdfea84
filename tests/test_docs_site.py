"""The documentation as a site: its contents, and what the generator makes of them."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import segadapt
from pages import ROOT, links, read

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def listed(nav: list[dict[str, Any]]) -> Iterator[str]:
    """All pages of the contents."""
    for entry in nav:
        for page in entry.values():
            yield from [page] if isinstance(page, str) else listed(page)


def test_every_page_is_in_the_contents() -> None:
    contents = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert sorted(listed(contents)) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def test_the_reference_has_every_public_name() -> None:
    named = re.findall(r"^::: segadapt\.(\w+)$", read("docs/api.md"), re.M)
    assert sorted(named) == sorted({*segadapt.__all__, "plugin"} - {"__version__"})


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(DOCS).as_posix() for page in PAGES])
def test_pages_link_to_pages_only(page: Path) -> None:
    """What is not in docs/ is not on the site."""
    for target, _ in links(page):
        assert (page.parent / target).resolve().is_relative_to(DOCS), target


@pytest.mark.skipif(find_spec("zensical") is None or find_spec("mkdocstrings") is None, reason="needs the extra docs")
def test_the_site_is_built_as_it_is_meant(tmp_path: Path) -> None:
    for name in ("docs", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    site = tmp_path / "build/site"
    reference = (site / "api.html").read_text(encoding="utf-8")
    assert all(f'id="segadapt.{name}"' in reference for name in segadapt.__all__ if name != "__version__")
    for page in PAGES:
        text = (site / page.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text)  # nothing comes from elsewhere
        prose = unescape(re.sub(r"<(pre|code).*?</\1>", "", text[text.index("<article") :], flags=re.S))
        assert "```" not in prose and "](" not in prose, page

"""The project's Markdown pages, taken apart: links, fenced blocks, commands, tables."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, and what is in it."""

    page: Path
    info: str
    text: str


def name(page: Path) -> str:
    """A page's path in the project."""
    return page.relative_to(ROOT).as_posix()


def read(page: str) -> str:
    """A page's text, by its path in the project."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path, *infos: str) -> list[Block]:
    """The fenced blocks of a page, of these kinds."""
    found = (Block(page, info.strip(), text) for info, text in FENCE.findall(page.read_text(encoding="utf-8")))
    return [block for block in found if block.info in infos]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(path or "", anchor or "") of each link that does not leave the project."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def words(block: Block) -> list[list[str]]:
    """The commands of a shell block as words, without comments and redirections; continued lines are joined."""
    lines = [shlex.split(line, comments=True) for line in block.text.replace("\\\n", " ").splitlines()]
    return [line[: line.index(">")] if ">" in line else line for line in lines if line]


def commands(page: Path) -> Iterator[list[str]]:
    """All segadapt commands in a page's fenced blocks, as the words after `segadapt`; torchrun's too."""
    for block in blocks(page, "", "bash", "bash runnable", "sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if re.match(r"segadapt |torchrun .* -m segadapt ", line):
                whole = words(Block(page, "bash", line))[0]
                yield whole[whole.index("segadapt") + 1 :]


def named_commands(page: Path) -> Iterator[list[str]]:
    """Commands that the prose names in code, as words."""
    for code in CODE.findall(prose(page)):
        if code.startswith("segadapt "):
            yield code.split()[1:]


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", read(page), re.M | re.S)
    assert found is not None, f"{page} has no section '{heading}'"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all table rows in a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rules = {number for number, line in enumerate(lines) if re.fullmatch(r"[|\-: ]+", line)}
    body = [line for number, line in enumerate(lines) if number not in rules and number + 1 not in rules]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body]

"""Broken inputs made from whole ones, and what a reader may do with them: take them, or say in one line what is wrong.

Inputs are drawn by hypothesis, which makes a failing one as small as it can. A reader fails with an exception that is
no SegadaptError, or when it takes more than `PATIENCE` seconds.
"""

import copy
import faulthandler
import json
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from segadapt.errors import SegadaptError

PATIENCE = 5.0
"""Seconds of this process's own time that reading one input may take; ten times as many by the clock."""


@dataclass(frozen=True)
class Reader:
    """What is fuzzed: `read(content, folder)` may write into the folder, and reads."""

    name: str
    contents: SearchStrategy[bytes]
    read: Callable[[bytes, Path], object]
    share: float = 1.0  # of the inputs that the cheapest get


@dataclass
class Outcome:
    """What came of a reader's inputs."""

    name: str
    taken: int = 0
    refused: int = 0
    slowest: float = 0.0  # seconds
    failure: str = ""
    content: bytes = b""  # the smallest that was found to fail

    def __str__(self) -> str:
        counts = f"{self.taken + self.refused} inputs: {self.taken} read, {self.refused} refused"
        return f"{self.name}: {counts}, slowest {self.slowest:.2f} s" + (f"; {self.failure}" if self.failure else "")


class Hang(BaseException):
    """Too slow; nothing that reads may catch it."""


def fuzz(reader: Reader, count: int, folder: Path, number: int | None = None) -> Outcome:
    """Read `count` inputs, always the same ones, or with a `number` those of that seed."""
    outcome = Outcome(reader.name)
    armed = 0.0

    def one(content: bytes) -> None:
        nonlocal armed
        if time.monotonic() - armed > 10 * PATIENCE:  # seldom, since it is a thread
            faulthandler.dump_traceback_later(30 * PATIENCE, exit=True)  # for what never comes back to Python
            armed = time.monotonic()
        outcome.content = content
        begun = time.process_time()
        try:
            with _watched(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(content, folder)
            outcome.taken += 1
        except SegadaptError as error:
            assert str(error), "an error without words"
            outcome.refused += 1
        outcome.slowest = max(outcome.slowest, time.process_time() - begun)

    run = given(reader.contents)(one)
    run = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=number is None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )(run)
    try:
        (run if number is None else seed(number)(run))()
    except (Exception, Hang) as error:
        outcome.failure = f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        faulthandler.cancel_dump_traceback_later()
    return outcome


@contextmanager
def _watched() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Hang(f"more than {PATIENCE:g} s")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, PATIENCE), signal.ITIMER_REAL: (signal.SIGALRM, 10 * PATIENCE)}
    before = {number: signal.signal(number, stop) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


WORDS = [
    *("", "???", "@x", "~", "~x", "..", "a/b", "\0", "\ud800", "\udc80", "é", "null", "1e400", "2024-99-99", "<b>"),
    *("x" * 300, "x" * 5000, "9" * 400, "-1", "nan", "train", "val", "sean", "gta5", "cityscapes19", "folder"),
]
NUMBERS = [0, 1, -1, 7, 255, 2**31, 2**63, 2**64, -(2**70), 1e-300, 1e308, float("inf"), float("nan"), 0.5]
plain: SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.sampled_from(WORDS), st.sampled_from(NUMBERS), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner),
    max_leaves=6,
)

YAML_BITS = [
    *("*a", "&a ", "&a [*a]", "a: &a {b: *a}\n", "<<: *a\n", "!!timestamp x", "!!int x", "!!binary x", "!!set {a}"),
    *("!!python/name:os.system ", "? ", "???", "{a: ???}", "[" * 60, "{" * 60, "- " * 60, "? " * 60, "\t", "'"),
    *("%YAML 1.1\n---\n", "--- \n", "0x" + "f" * 60, "1:1:1", "\ufeff", '"\\U0011FFFF"', '"\\ud800"', "|\n", ">\n"),
    *("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "~x", "a: 1\na: 2\n", "@x", ": ", "\n", "\n  ", "#", ",", "]"),
    *("\0", "}"),
]
JSON_BITS = [
    *("NaN", "-Infinity", "1e400", "9" * 400, "[" * 60, '{"a":' * 60, "]", "}", ",", '"', "\\", "null", "true", "\n"),
    *('"\\ud800"', '"\\u0000"', '"\\udc80"', '{"step": 1e400}\n', '{"step": 1}\n', "\ufeff", "{}\n", "[]\n", "\0"),
]


@st.composite
def changed(draw: DrawFn, whole: Any) -> Any:
    """Plain data of which one to three places have been changed."""
    tree = copy.deepcopy(draw(st.sampled_from(whole)))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        tree = draw(_changed_once(tree))
    return tree


@st.composite
def _changed_once(draw: DrawFn, tree: Any) -> Any:
    place, keys = tree, list[Any]()
    parent: Any = None
    while isinstance(place, (dict, list)) and place and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        parent, place = place, place[key]
        keys.append(key)
    if parent is None:
        return draw(plain)
    match draw(st.sampled_from(["value", "value", "value", "gone", "renamed", "twice", "deep"])):
        case "gone":
            del parent[keys[-1]]
        case "renamed" if isinstance(parent, dict):
            parent[draw(st.sampled_from(WORDS))] = parent.pop(keys[-1])
        case "twice" if isinstance(parent, list):
            parent.append(place)
        case "deep":
            for _ in range(draw(st.integers(1, 60))):
                place = [place]
            parent[keys[-1]] = place
        case _:
            parent[keys[-1]] = draw(plain)
    return tree


@st.composite
def patched(draw: DrawFn, text: str, bits: list[str]) -> bytes:
    """Text with up to two bits put in, cut out or said twice; mostly as it is."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        end = at + draw(st.integers(0, 30))
        match draw(st.sampled_from(["in", "in", "instead", "out", "twice"])):
            case "in":
                text = text[:at] + draw(st.sampled_from(bits)) + text[at:]
            case "instead":
                text = text[:at] + draw(st.sampled_from(bits)) + text[end:]
            case "out":
                text = text[:at] + text[end:]
            case _:
                text = text[:end] + text[at:]
    return text.encode(errors="surrogatepass")


NUMBERS_32 = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\1\0\0\0"]
"""What a length or a size may be instead."""


@st.composite
def mutated(draw: DrawFn, content: bytes) -> bytes:
    """Bytes of which some have been changed, cut out, or said twice."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, max(0, len(found) - 1))), draw(st.integers(1, 64))
        match draw(st.sampled_from(["byte", "byte", "word", "out", "twice", "end"])):
            case "byte":
                found[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "word":
                found[at : at + 4] = draw(st.sampled_from(NUMBERS_32))
            case "out":
                del found[at : at + length]
            case "twice":
                found[at:at] = found[at : at + length]
            case _:
                del found[at:]
    return bytes(found)


@st.composite
def yaml_files(draw: DrawFn, whole: list[Any]) -> bytes:
    """YAML of changed trees, and with changes in its text."""
    tree = draw(st.sampled_from(whole) | changed(whole))
    flow = draw(st.sampled_from([False, False, None]))
    return draw(patched(_as_yaml(tree, default_flow_style=flow, sort_keys=False, allow_unicode=True), YAML_BITS))


def _as_yaml(tree: Any, **style: Any) -> str:
    try:  # several times as fast, where PyYAML has it
        text: str = yaml.dump(tree, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), **style)
    except UnicodeEncodeError:
        text = yaml.safe_dump(tree, **style)
    return text


@st.composite
def json_files(draw: DrawFn, whole: list[Any]) -> bytes:
    """The same for JSON."""
    return draw(patched(json.dumps(draw(st.sampled_from(whole) | changed(whole))), JSON_BITS))

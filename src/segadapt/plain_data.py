"""YAML and JSON as plain data, whoever wrote them: the only place where segadapt reads either.

What comes out is dict, list, str, int, float, bool and None: at most `DEPTH` levels and, of YAML, `NODES` values with
every alias written out; whole numbers of 64 bits, in JSON finite numbers only; no key twice in a mapping; text that can
be written down. All else is a UsageError with its place: no reader has to expect whatever a parser may raise, and none
works for minutes on a small file.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from segadapt.errors import UsageError
from segadapt.files import is_file, need_file

DEPTH = 32
"""Levels of mappings and lists: a recipe has five, a label space six."""
NODES = 20_000
"""Values, keys, mappings and lists in YAML: a label space of 254 classes in several encodings has half of them."""
WHOLE = 2**64
"""Whole numbers are smaller, positive or negative."""
LONGEST_NUMBER = 100
"""Characters of a number."""
YAML_BYTES, JSON_BYTES, LINE_BYTES = 1_000_000, 64_000_000, 1_000_000
"""The largest file of YAML and of JSON, and the longest line of JSON."""

_COLOR = re.compile(r"""(?:[^#"']|"[^"]*"|'[^']*')*?(?::\s+|[,\[]\s*)(#[0-9a-fA-F]{3}(?:[0-9a-fA-F]{3})?)\b""")
"""The beginning of a line whose first comment stands for a value and looks like a colour."""

Json = dict[str, Any]


def read_yaml(path: Path, what: str) -> Any:
    """The plain data in a YAML file. Raises UsageError when it is not there, cannot be read or is none."""
    return parse_yaml(_text(path, what, YAML_BYTES), path)


def read_json(path: Path, what: str) -> Any:
    """The plain data in a JSON file. Raises UsageError when it is not there, cannot be read or is none."""
    return parse_json(_text(path, what, JSON_BYTES), path)


def flat(tree: Json, prefix: str = "") -> Json:
    """Nested mappings -> one mapping with dotted keys."""
    result: Json = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            result.update(flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def read_json_lines(path: Path) -> Iterator[tuple[str, Json]]:
    """Each line of a file that holds a mapping, and that mapping; nothing where there is no file.

    Other lines are left out: half a line, from a kill or a full disk, must not lose the rest. A device or a pipe, which
    may have no end, is no file. Raises UsageError when the file cannot be read.
    """
    if not is_file(path):
        return
    try:
        with path.open("rb") as file:
            while line := file.readline(LINE_BYTES):
                try:
                    text = line.decode().strip()
                    content = parse_json(text, path)
                except (UnicodeDecodeError, UsageError):
                    continue
                if isinstance(content, dict):
                    yield text, content
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def parse_yaml(text: str, where: Path | str) -> Any:
    """The plain data of YAML text; `where` is for messages. Raises UsageError when it is none."""
    try:
        return _unshared(_Loader(text).get_single_data())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        if isinstance(error, _NotPlain):
            raise UsageError(f"{error.problem}{line}", where=where, remedy=error.remedy) from error
        remedy = "Fix the file; YAML needs `key: value`."
        if "'@'" in str(error):
            remedy = "A value that begins with @ needs quotes."
        elif mark and (color := _unquoted_color(text, mark.line)):
            remedy = f'In line {color[0]} the # begins a comment; write a colour in quotes, "{color[1]}".'
        raise UsageError(f"not valid YAML{line}", where=where, remedy=remedy) from error
    except (ValueError, OverflowError) as error:  # an escape like "\UFFFFFFFF", which the parser does not check
        raise UsageError(f"not valid YAML ({error})", where=where, remedy="Fix the file.") from error


def _unshared(content: Any) -> Any:
    """The same with a copy for each alias, as it reads: a change of one must not be a change of the others."""
    if isinstance(content, dict):
        return {key: _unshared(value) for key, value in content.items()}
    return [_unshared(value) for value in content] if isinstance(content, list) else content


def _unquoted_color(text: str, last: int) -> tuple[int, str] | None:
    """Line number, from 1, and text of the last colour without quotes in the lines up to `last`, which is from 0."""
    for number, line in reversed([*enumerate(text.splitlines()[: last + 1], start=1)]):
        if found := _COLOR.match(line):
            return number, found[1]
    return None


def parse_json(text: str, where: Path | str) -> Any:
    """The plain data of JSON text; `where` is for messages. Raises UsageError when it is none."""
    try:
        content = _JSON.decode(text)
        if text.count("[") + text.count("{") > DEPTH or "\\u" in text:
            _check(content, DEPTH)
    except (ValueError, RecursionError) as error:
        reason = f"more than {DEPTH} levels" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"not valid JSON ({reason})", where=where, remedy="Fix the file or delete it.") from error
    return content


def _text(path: Path, what: str, most: int) -> str:
    """The text of a file of at most `most` bytes."""
    try:
        with need_file(path, what).open("rb") as file:
            content = file.read(most + 1)
        if len(content) <= most:
            return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text", where=path, remedy="Save the file as UTF-8.") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    raise UsageError(
        f"larger than {most / 1e6:.0f} MB", where=path, remedy=f"Check the path: {what} should be smaller."
    )


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot be read ({error.strerror or error})", where=path, remedy="Check the path and its permissions."
    )


def _whole(text: str) -> int:
    if len(text) > 21 or abs(int(text)) >= WHOLE:
        raise ValueError(f"{text[:12]}… is too large a number")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text[:12]} is not a finite number")
    return float(text)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> Json:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key '{next(name for name in names if names.count(name) > 1):.60}' twice")
    return content


_JSON = json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_no_key_twice)


def _check(content: Any, depth: int) -> None:
    """Raise ValueError for what is too deep, and for text that cannot be written down."""
    if isinstance(content, str):
        if not _is_text(content):
            raise ValueError("text with an invalid character")
    elif isinstance(content, (dict, list)):
        if depth == 0:
            raise ValueError(f"more than {DEPTH} levels")
        for value in [*content, *content.values()] if isinstance(content, dict) else content:
            _check(value, depth - 1)


def _is_text(value: str) -> bool:
    """No NUL, and surrogates only where Python puts them: for the bytes of a file name that is no UTF-8."""
    try:
        value.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in value


class _NotPlain(yaml.MarkedYAMLError):
    """YAML that is not plain data, or too much of it."""

    def __init__(self, problem: str, at: Any, remedy: str) -> None:
        super().__init__(problem=problem, problem_mark=at.start_mark if isinstance(at, Node) else at)
        self.remedy = remedy


_PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_UNFOLD = "Write it flatter or shorter."


class _Loader(yaml.SafeLoader):
    """PyYAML's own loader for plain data, with bounds.

    Dates stay text: no setting is one, and a wrong one would be no error of YAML's.
    """

    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        f"tag:yaml.org,2002:{name}": yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{name}"]
        for name in _PLAIN_TAGS
    }
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's, per class
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in (*_PLAIN_TAGS, "merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = 0  # nodes so far, aliases written out
        self._heights: list[int] = [0]  # of what is being composed, innermost last: levels found in it so far
        self._composed: dict[int, tuple[int, int]] = {}  # id of a node -> its nodes and levels

    # scanning

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's name
        """Stop in time: PyYAML's time grows with the square of the depth."""
        if self.flow_level >= DEPTH:
            raise _NotPlain(f"more than {DEPTH} levels", self.get_mark(), _UNFOLD)
        super().fetch_flow_collection_start(TokenClass)

    def check_key(self) -> bool:
        """In { } and [ ] YAML takes each ? for the beginning of a key: `{root: ???}` would be three of them."""
        if self.flow_level and self.peek(1) not in "\0 \t\r\n\x85\u2028\u2029":
            raise _NotPlain(
                "a ? between { } or [ ] needs quotes", self.get_mark(), 'Write "???" there for a value to be given.'
            )
        return bool(super().check_key())

    # composing

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """As PyYAML, but counts: an alias counts as all that it stands for, and none may stand for itself."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        before = self._count
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._composed:
                raise _NotPlain(
                    f"*{event.anchor:.60} refers to itself", event.start_mark, "Write out what it stands for."
                )
            nodes, height = self._composed[id(node)]
            self._count += nodes
        else:
            self._count += 1
            self._heights.append(0)
            self._bound(event.start_mark, len(self._heights) - 2)  # without itself, which may be no collection
            node = super().compose_node(parent, index)
            height = self._heights.pop() + (0 if isinstance(node, ScalarNode) else 1)
            self._composed[id(node)] = self._count - before, height
        self._heights[-1] = max(self._heights[-1], height)
        self._bound(event.start_mark, len(self._heights) - 1 + height)
        return node

    def _bound(self, mark: yaml.Mark, levels: int) -> None:
        if self._count > NODES:
            raise _NotPlain(f"more than {NODES} values", mark, _UNFOLD)
        if levels > DEPTH:
            raise _NotPlain(f"more than {DEPTH} levels", mark, _UNFOLD)

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """As PyYAML, which lets the last of two equal keys win."""
        node = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag.endswith(":merge"):
                continue
            key = self.construct_object(key_node) if isinstance(key_node, ScalarNode) else []
            if isinstance(key, (list, dict)):
                raise _NotPlain("a key is a list or a mapping", key_node, "Keys are names.")
            if isinstance(key, bool):
                what = f"key '{key_node.value}' means {str(key).lower()} in YAML"
                raise _NotPlain(what, key_node, f'Put it in quotes: "{key_node.value}".')
            if key in first:
                what = f"key '{key!s:.60}' appears twice, first in line {first[key]}"
                raise _NotPlain(what, key_node, "Leave one of them out.")
            first[key] = key_node.start_mark.line + 1
        return node

    # constructing

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """As PyYAML, with each value checked."""
        if node.tag not in self.yaml_constructors:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise _NotPlain(
                f"{tag:.60} is not plain data", node, "Leave it out: text, numbers, lists and keys are enough."
            )
        kind = node.tag.rpartition(":")[2]
        if kind in ("int", "float") and len(node.value) > LONGEST_NUMBER:  # YAML's base 60 takes quadratic time
            raise _NotPlain("too long a number", node, "Quote it if it is text.")
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, IndexError, OverflowError, TypeError) as error:
            raise _NotPlain(f"'{node.value!s:.40}' is not a valid {kind}", node, "Change it.") from error
        if isinstance(value, int) and abs(value) >= WHOLE:
            raise _NotPlain("too large a number", node, "Whole numbers have up to 64 bits.")
        if isinstance(value, str) and not _is_text(value):
            raise _NotPlain("text with an invalid character", node, "Leave it out.")
        return value

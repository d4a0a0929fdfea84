"""YAML and JSON within bounds: plain data comes out, or one UsageError with the place, at once."""

import json
from pathlib import Path

import pytest

from segadapt.errors import UsageError
from segadapt.plain_data import DEPTH, NODES, parse_json, parse_yaml, read_json, read_json_lines, read_yaml

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine levels of nine aliases: 387 million values in 400 bytes."""

BAD_YAML = {
    "nested aliases": (LAUGHS, f"more than {NODES} values (line 5)"),
    "aliases in a chain": (
        "a0: &a0 [x]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}]\n" for k in range(DEPTH)),
        f"more than {DEPTH} levels (line {DEPTH})",
    ),
    "an alias in itself": ("stages: &a {b: *a}", "*a refers to itself (line 1)"),
    "5,000 brackets": ("[" * 5000, f"more than {DEPTH} levels (line 1)"),
    "5,000 braces": ("{a: " * 5000, f"more than {DEPTH} levels (line 1)"),
    "5,000 lists in one line": ("- " * 5000, f"more than {DEPTH} levels (line 1)"),
    "5,000 levels": ("".join(f"{' ' * k}a:\n" for k in range(1000)), f"more than {DEPTH} levels (line {DEPTH + 1})"),
    "many values": ("- a\n" * (NODES + 1), f"more than {NODES} values (line {NODES})"),
    "a key twice": ("a:\n  b: 1\n  c: 2\n  b: 3\n", "key 'b' appears twice, first in line 2 (line 4)"),
    "a number as key twice": ("1: a\n01: b", "key '1' appears twice, first in line 1 (line 2)"),
    "a list as key": ("? [a]\n: b", "a key is a list or a mapping (line 1)"),
    "a word of YAML's as key": ("a: 1\noff: 2", "key 'off' means false in YAML (line 2)"),
    "a date": ("a: !!timestamp x", "!!timestamp is not plain data (line 1)"),
    "an object": ("a: !!python/object:os.system {}", "!!python/object:os.system is not plain data (line 1)"),
    "a wrong number": ("a: !!int x", "'x' is not a valid int (line 1)"),
    "a large number": (f"a: 0x{'f' * 17}", "too large a number (line 1)"),
    "a number in base 60": (f"a: {'1:' * 300_000}1", "too long a number (line 1)"),
    "??? in braces": ("a: 1\nb: {root: ???}", "a ? between { } or [ ] needs quotes (line 2)"),
    "NUL": ('a: "\\0"', "text with an invalid character (line 1)"),
    "half a character": ('a: "\\ud800"', "text with an invalid character (line 1)"),
    "no character": ('a: "\\U00FFFFFF"', "not valid YAML (chr() arg not in range(0x110000))"),
    "no YAML": ("a: [1", "not valid YAML (line 1)"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_yaml_that_is_no_plain_data(case: str) -> None:
    text, what = BAD_YAML[case]
    with pytest.raises(UsageError) as caught:
        parse_yaml(text, "there")
    assert caught.value.what == what and caught.value.where == "there" and caught.value.remedy


def test_yaml_that_is() -> None:
    text = "a: &a {x: 1, '???': -2.5}\nb: {<<: *a, x: [*a, ~, yes]}\nc: 2024-01-31\nd: ???\ne: =\n"
    a = {"x": 1, "???": -2.5}
    expected = {"a": a, "b": {**a, "x": [a, None, True]}, "c": "2024-01-31", "d": "???", "e": "="}
    assert parse_yaml(text, "there") == expected
    for depth, whole in ((DEPTH, True), (DEPTH + 1, False)):
        for text in ("[" * depth + "]" * depth, "- " * (depth - 1) + "- x"):
            if whole:
                assert parse_yaml(text, "there")
            else:
                with pytest.raises(UsageError):
                    parse_yaml(text, "there")


BAD_JSON = {
    "NaN": '{"step": NaN}',
    "infinity": '{"format": Infinity}',
    "overflow": '{"step": 1e400}',
    "a large number": str(2**64),
    "a very large number": "9" * 5000,
    "levels": "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
    "many levels": '{"a":' * 100_000,
    "a key twice": '{"a": 1, "a": 2}',
    "half a character": '"\\ud800"',
    "NUL": '["\\u0000"]',
    "nothing": "",
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_is_no_plain_data(case: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        parse_json(BAD_JSON[case], "there")
    assert caught.value.what.startswith("not valid JSON (") and caught.value.where == "there"
    (tmp_path / "lines").write_text(f'{{"a": 1}}\n{BAD_JSON[case]}\n\n{{"a": 2}}\n{{"a":')
    assert [line for _, line in read_json_lines(tmp_path / "lines")] == [{"a": 1}, {"a": 2}]


def test_json_that_is(tmp_path: Path) -> None:
    content = {"a": [1, -2.5, None, True, "é"], "b": "\udcff", "c": -(2**63)}  # a file name that is no UTF-8
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_json(tmp_path / "a.json", "it") == content
    assert list(read_json_lines(tmp_path / "none")) == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**9)
    for name, what in (("bytes", "not UTF-8 text"), ("large", "larger than"), ("none", "it does not exist")):
        for read in (read_yaml, read_json):
            with pytest.raises(UsageError, match=what):
                read(tmp_path / name, "it")
    for place in (tmp_path, tmp_path / ("a" * 5000)):
        with pytest.raises(UsageError, match=r"it (is|does) not"):
            read_yaml(place, "it")


@pytest.mark.parametrize(
    ("text", "line", "color"),
    [
        ("classes:\n  - {name: a, color: #ff0000}\n  - {name: b}\n", 2, "#ff0000"),
        ("- {color: #f00, name: a}\n- b\n", 1, "#f00"),
        ('- {name: a, color: "#00ff00", rgb: {p: [#ff0000, 3]}}\n# color: #123456\n- b\n', 1, "#ff0000"),
        ("a: [#ff0000]\n", 1, "#ff0000"),
    ],
)
def test_a_colour_without_quotes_is_told_as_one(text: str, line: int, color: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_yaml(text, "x.yaml")
    assert f"In line {line} " in raised.value.remedy and f'"{color}"' in raised.value.remedy


@pytest.mark.parametrize("text", ["a: [1, 2 # hi\nb: 3\n", 'a: ["#ff0000", 1\nb: 3\n', "# a: #ff0000\nb: [1\nc: 2\n"])
def test_other_comments_are_not_taken_for_colours(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_yaml(text, "x.yaml")
    assert "colour" not in raised.value.remedy


def test_a_device_without_an_end_has_no_lines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    assert list(read_json_lines(tmp_path / "metrics.jsonl")) == []

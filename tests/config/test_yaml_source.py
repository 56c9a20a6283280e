"""What the reader of YAML files takes and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, Problem
from agent.yaml_source import BYTES_MAX, DEPTH_MAX, REFUSED, dotted, parse, read


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read(path)
    return str(caught.value.problems[0])


def test_values_are_never_guessed_at():
    text = "{a: no, b: 0777, c: 1e3, d: 22:30, e: 1_000, f: .inf, g: 2026-01-01, h: True, i: 0x10, k: 1.10, l: '1'}"

    data = parse("x", text).data

    assert [key for key, value in data.items() if not isinstance(value, str)] == ["k"]
    assert data["b"] == "0777"


def test_plain_values_are_what_yaml_1_2_says():
    data = parse("x", "{a: true, b: false, c: null, d: ~, e: , f: -12, g: 0.5, h: .5, i: +3}").data

    assert data == {"a": True, "b": False, "c": None, "d": None, "e": None, "f": -12, "g": 0.5, "h": 0.5, "i": 3}


def test_every_value_and_every_key_has_its_place():
    document = parse("x", "a:\n  b: [1,\n    2]\n")

    assert document.place(("a", "b", 1)) == (3, 5)
    assert document.place(("a", "b"), of_key=True) == (2, 3)
    assert document.place(("a", "b")) == (2, 6)
    assert document.place(("a", "gone", 7)) == (2, 3)


def test_a_path_reads_as_people_write_it():
    assert dotted(("steps", 0, "do")) == "steps[0].do"
    assert dotted(()) == "(file)"
    assert dotted(("a\x1b[2J",)) == "'a\\x1b[2J'"


def test_byte_order_mark_and_crlf_are_welcome(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")

    document = read(path)

    assert document.data == {"a": 1, "b": {"c": 2}}
    assert document.place(("b", "c")) == (3, 6)


def test_other_encodings_are_refused_with_the_place(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_bytes("site:\n  name: 银\n".encode("gb18030"))

    assert refusal(path) == "2:9: (file): is not UTF-8 text; save it as UTF-8"


def test_a_file_of_ten_megabytes_is_refused(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_bytes(b"#" * 10_000_000)

    assert "is larger than 1 MiB" in refusal(path)


def test_a_file_of_one_mebibyte_is_read(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_bytes(b"a: 1\n#" + b"#" * (BYTES_MAX - 6))

    assert read(path).data == {"a": 1}


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    path = tmp_path / "site.yaml"
    os.mkfifo(path)

    assert refusal(path) == "1:1: (file): cannot be read: it is a device, FIFO or socket, not a file"


def test_a_device_is_refused():
    assert "not a file" in refusal(Path("/dev/zero"))


def test_a_directory_is_refused(tmp_path):
    assert "it is a directory" in refusal(tmp_path)


def test_a_missing_file_is_told():
    assert refusal(Path("/nonexistent/site.yaml")) == "1:1: (file): cannot be read: No such file or directory"


def test_a_link_to_a_file_will_do(tmp_path):
    (tmp_path / "real.yaml").write_text("a: 1\n", encoding="utf-8")
    link = tmp_path / "site.yaml"
    link.symlink_to("real.yaml")

    assert read(link).data == {"a": 1}


def test_a_link_to_a_device_is_refused(tmp_path):
    link = tmp_path / "site.yaml"
    link.symlink_to("/dev/zero")

    assert "not a file" in refusal(link)


def test_an_alias_bomb_is_refused_before_anything_is_built():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]

    document = parse("x", "\n".join(levels))

    assert document.data["a8"] == [REFUSED] * 10
    assert len(document.problems) == 9 + 80


def test_all_that_is_refused_is_told_at_once():
    document = parse("x", "a: &x 1\nb: *x\nb: 2\n<<: {c: 3}\n? [d]\n: 4\ne: !!int 5\nf: 6\n")

    assert [(problem.line, problem.column) for problem in document.problems] == [
        (1, 4), (2, 4), (3, 1), (4, 1), (5, 3), (7, 4)
    ]  # fmt: skip
    assert document.data == {"a": 1, "b": REFUSED, "e": "5", "f": 6}


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_however_deep(opening):
    with pytest.raises(ConfigError, match=r"levels deep|is not YAML"):
        parse("x", opening * 100_000)


def test_nesting_as_deep_as_allowed_is_read():
    assert parse("x", "[" * DEPTH_MAX + "]" * DEPTH_MAX).problems == ()


def test_a_number_too_long_to_be_one_is_text():
    assert parse("x", "a: " + "9" * 5000).data == {"a": "9" * 5000}


def read_or_refused(source: Path | str) -> None:
    """Read *source*; the only error that it may bring is one that tells where and why."""
    try:
        document = read(source) if isinstance(source, Path) else parse("x", source)
    except ConfigError as error:
        problems: tuple[Problem, ...] = error.problems
        if not problems:
            raise
    else:
        problems = document.problems
    assert all(problem.line >= 1 and problem.column >= 1 and problem.message for problem in problems)


@given(st.text(max_size=200))
def test_no_text_brings_anything_but_a_document_or_an_error(text):
    read_or_refused(text)


@given(st.text(alphabet="ab:-[]{}?,&*!<|>'\"#% \n\t~01.", max_size=80))
def test_no_punctuation_brings_anything_but_a_document_or_an_error(text):
    read_or_refused(text)


@given(st.binary(max_size=60))
def test_no_bytes_bring_anything_but_a_document_or_an_error(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(raw)

    read_or_refused(path)

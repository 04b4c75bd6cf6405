"""What is kept of an output, and how its log is read."""

from pathlib import Path

import pytest

from attune.workers.logs import Logs
from attune.workers.output import Output


def printed(path: Path, *chunks: bytes, limit: int = 100, head: int = 10) -> Output:
    """An output that has ended."""
    with Output(path, limit=limit, head=head) as output:
        for chunk in chunks:
            output.write(chunk)
    return output


KEPT = [
    # What is printed, and what stands in the file when 10 bytes are kept.
    ([b"123456789"], b"123456789"),
    ([b"1234567890"], b"1234567890"),
    ([b"12345", b"67890"], b"1234567890"),
    ([b"12345678901"], b"1234567890\n[attune: cut here, 1 bytes more were printed]\n"),
    ([b"12345", b"678901", b"x" * 5], b"1234567890\n[attune: cut here, 6 bytes more were printed]\n"),
    ([b"1234567890", b"x"], b"1234567890\n[attune: cut here, 1 bytes more were printed]\n"),
]


@pytest.mark.parametrize(("chunks", "content"), KEPT, ids=range(len(KEPT)))
def test_a_file_holds_what_it_may_and_says_what_was_cut(tmp_path: Path, chunks: list[bytes], content: bytes) -> None:
    output = printed(tmp_path / "log", *chunks, limit=10, head=3)

    assert output.path.read_bytes() == content
    assert output.total == sum(map(len, chunks))
    assert output.head == b"".join(chunks)[:3]


def test_an_output_of_nothing_leaves_no_file(tmp_path: Path) -> None:
    output = printed(tmp_path / "log")

    assert not output.path.exists()


def test_an_earlier_file_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("what another execution with the same id printed")

    assert printed(tmp_path / "log", b"new").path.read_bytes() == b"new"


def test_the_last_lines_are_those_that_say_something(tmp_path: Path) -> None:
    output = printed(tmp_path / "log", b"one\n\n tw", b"o\n\xff\n  \nfo\x00ur\n\n")

    assert output.last_lines(2) == ["\ufffd", "fo\ufffdur"]
    assert output.last_lines(9) == ["one", " two", "\ufffd", "fo\ufffdur"]


def test_one_endless_line_is_cut_from_its_beginning(tmp_path: Path) -> None:
    output = printed(tmp_path / "log", b"x" * 100_000, b"the end")

    (line,) = output.last_lines(5)
    assert len(line) == 8_000
    assert line.endswith("xthe end")


@pytest.mark.parametrize("limit", [10, 1_000])
def test_a_full_disk_is_noticed_once_and_stops_nobody(tmp_path: Path, limit: int) -> None:
    (tmp_path / "log").symlink_to("/dev/full")

    output = printed(tmp_path / "log", b"some words", b"and more of them", limit=limit)

    assert output.failure == "No space left on device"
    assert output.total == 26
    assert output.head == b"some words"


TAILS = [
    (b"", 3, ""),
    (b"one\ntwo\nthree\n", 2, "two\nthree\n"),
    (b"one\ntwo\nthree\n", 3, "one\ntwo\nthree\n"),
    (b"one\ntwo\nthree\n", 9, "one\ntwo\nthree\n"),
    (b"one\ntwo\nthree\n", 0, ""),
    # The last line has no end yet.
    (b"one\ntwo\nthr", 2, "two\nthr"),
    # Empty lines are lines.
    (b"one\n\n\n", 2, "\n\n"),
    (b"\n", 1, "\n"),
    (b"no UTF-8: \xff\n", 1, "no UTF-8: \ufffd\n"),
    # Lines that are longer than what is read at a time, and a last block that begins with a newline.
    (b"a\n" + b"x" * 200_000 + b"\n" + b"y" * 70_000, 2, "x" * 200_000 + "\n" + "y" * 70_000),
    (b"a\n" + b"x" * 65_535, 1, "x" * 65_535),
    (b"a\n" + b"x" * 65_535, 2, "a\n" + "x" * 65_535),
]


@pytest.mark.parametrize(("content", "count", "lines"), TAILS, ids=range(len(TAILS)))
def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path, content: bytes, count: int, lines: str) -> None:
    logs = Logs(tmp_path)
    path = logs.path(12_345, "stderr")
    path.parent.mkdir()
    path.write_bytes(content)

    assert path.relative_to(tmp_path) == Path("000012/12345.stderr.log")
    assert logs.read(12_345, "stderr", count) == lines


def test_an_execution_that_printed_nothing_has_an_empty_log(tmp_path: Path) -> None:
    assert Logs(tmp_path).read(1, "stdout", None) == Logs(tmp_path).read(1, "stdout", 5) == ""

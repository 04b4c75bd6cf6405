"""Lines on stderr: what they look like, which there are, and that writing one never fails.

The log is one a process and cannot be set up twice, so each style and level has a process of its own.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from textwrap import dedent
from typing import Any

import orjson
import pytest

PRELUDE = """
import json, logging, sys
import structlog
from attune.telemetry.logging import configure
from attune.telemetry.stages import Stages
log = structlog.get_logger()
"""

# Runs one piece of code after the other; a line with "the end" on stderr follows each.
LOOP = """
for line in sys.stdin:
    exec(json.loads(line), globals().copy())
    print("the end", file=sys.stderr, flush=True)
"""

Logged = Callable[..., str]
Lines = Callable[..., list[dict[str, Any]]]
Line = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def stderr_of() -> Iterator[Logged]:
    """What a process with that style and level prints on stderr when it runs some code, and does not fail."""

    started: list[subprocess.Popen[bytes]] = []

    @cache
    def process(style: str, level: str) -> subprocess.Popen[bytes]:
        code = f"{PRELUDE}\nconfigure({level!r}, {style!r})\n{LOOP}"
        started.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    def run(code: str, style: str = "json", level: str = "info") -> str:
        child = process(style, level)
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(orjson.dumps(dedent(code)) + b"\n")
        child.stdin.flush()
        lines: list[bytes] = []
        while (line := child.stderr.readline()) != b"the end\n":
            assert line or child.wait() == 0, b"".join(lines).decode()
            lines.append(line)
        return b"".join(lines).decode()

    yield run
    for child in started:
        with child:
            child.kill()


@pytest.fixture(scope="module")
def lines_of(stderr_of: Logged) -> Lines:
    """The lines of JSON that some code logs."""
    return lambda code, level="info": [orjson.loads(line) for line in stderr_of(code, "json", level).splitlines()]


@pytest.fixture(scope="module")
def line_of(lines_of: Lines) -> Line:
    """The only line that some code logs."""

    def only(code: str) -> dict[str, Any]:
        (line,) = lines_of(code)
        return line

    return only


# JSON


def test_a_line_is_one_json_object_with_time_level_and_message_first(line_of: Line) -> None:
    line = line_of("log.info('pack installed', pack='core', version='1')")
    assert list(line) == ["timestamp", "level", "message", "pack", "version"]
    assert (line["level"], line["message"], line["pack"]) == ("info", "pack installed", "core")
    written = datetime.fromisoformat(line["timestamp"])
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
    assert line["timestamp"].endswith("Z")


def test_event_is_the_event_and_not_the_text_of_a_line(line_of: Line) -> None:
    line = line_of("log.info('event accepted', _event=7, trigger='a.b')")
    assert (line["message"], line["event"], line["trigger"]) == ("event accepted", 7, "a.b")


@pytest.mark.parametrize(
    "code",
    [
        # with the exception that is handled
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('it failed', rule='a.b')",
        # with an exception at hand
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    log.error('it failed', rule='a.b', exc_info=error)",
    ],
)
def test_an_exception_is_in_the_line_with_its_traceback(code: str, line_of: Line) -> None:
    line = line_of(code)
    assert (line["level"], line["message"], line["rule"]) == ("error", "it failed", "a.b")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")
    assert "exc_info" not in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        # what JSON has
        ("{'a': [1, None, True, 1.5]}", {"a": [1, None, True, 1.5]}),
        ("'two\\nlines'", "two\nlines"),
        # what it has not: as text
        ("__import__('datetime').datetime(2026, 1, 2, tzinfo=__import__('datetime').UTC)", "2026-01-02T00:00:00Z"),
        ("__import__('pathlib').Path('/a')", "/a"),
        ("b'bytes'", "b'bytes'"),
        ("ValueError('why')", "why"),
        ("float('nan')", None),
        # what makes the encoder fail
        ("2 ** 70", str(2**70)),
        ("{1: 'a key that is no text'}", "{1: 'a key that is no text'}"),
        ("'half a \\ud800 pair'", "half a \\ud800 pair"),
        ("type('Mute', (), {'__str__': lambda self: 1 / 0, '__repr__': lambda self: 1 / 0})()", "<Mute>"),
        ("(lambda own: own.append(own) or own)([])", "[[...]]"),
    ],
)
def test_any_value_can_be_logged(value: str, shown: object, line_of: Line) -> None:
    line = line_of(f"log.info('a value', value={value}, neighbour=1)")
    assert line["message"] == "a value"
    assert line["value"] == shown
    assert int(line["neighbour"]) == 1


# For people


def test_a_pretty_line_has_time_level_text_and_values(stderr_of: Logged) -> None:
    (line,) = stderr_of("log.info('event accepted', _event=7, trigger='a.b')", "pretty").splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info +\] event accepted +event=7 trigger=a\.b", line)


def test_on_a_pipe_auto_is_json_without_colours(stderr_of: Logged) -> None:
    text = stderr_of("log.warning('careful', who='you')", "auto")
    assert orjson.loads(text)["who"] == "you"
    assert "\x1b" not in stderr_of("log.warning('careful', who='you')", "pretty")


def test_on_a_terminal_auto_is_pretty() -> None:
    ours, terminal = os.openpty()
    with os.fdopen(ours, "rb") as reader:
        code = f"{PRELUDE}\nconfigure('info', 'auto')\nlog.info('hello', who='you')"
        subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, timeout=30)
        text = reader.read1(10_000).decode()
    os.close(terminal)
    assert "hello" in text
    assert not text.startswith("{")


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_t92_a_traceback_shows_no_local_variables(style: str, stderr_of: Logged) -> None:
    """They are parameters of actions, passwords, tokens."""
    code = """
    def check(password):
        raise ValueError("wrong")
    try:
        check("hunter" + "2")
    except ValueError:
        log.exception("not let in")
    """
    text = stderr_of(code, style)
    assert "ValueError: wrong" in text
    assert "hunter2" not in text


# Levels


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_shows_itself_and_what_is_above(level: str, shown: list[str], lines_of: Lines) -> None:
    lines = lines_of("for name in ('debug', 'info', 'warning', 'error'):\n    getattr(log, name)('a line')", level)
    assert [line["level"] for line in lines] == shown


# Libraries


def test_what_libraries_log_becomes_lines_of_ours(line_of: Line) -> None:
    line = line_of("logging.getLogger('some.library').warning('hello %s, 100%%', 'you')")
    assert (line["level"], line["message"], line["logger"]) == ("warning", "hello you, 100%", "some.library")


def test_an_exception_of_a_library_is_in_the_line(line_of: Line) -> None:
    line = line_of("try:\n    1 / 0\nexcept ZeroDivisionError:\n    logging.getLogger('library').exception('oh')")
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_libraries_that_talk_of_every_connection_are_not_heard(lines_of: Lines) -> None:
    assert lines_of("logging.getLogger('uvicorn.access').info('GET / 200')\nlogging.info('root')") == []


def test_at_level_error_libraries_do_not_warn(lines_of: Lines) -> None:
    assert lines_of("logging.getLogger('library').warning('hm')", "error") == []


def test_the_pool_does_not_print_a_traceback_for_each_connection_that_the_database_ends(lines_of: Lines) -> None:
    assert lines_of("logging.getLogger('asyncpg.pool').error('Resetting connection failed')") == []


@pytest.mark.parametrize(
    ("code", "level", "message"),
    [
        ("log(35, 'between two levels')", "warning", "between two levels"),
        ("log(99, 'above all levels')", "critical", "above all levels"),
        ("warning('%d', 'no number')", "warning", "%d ('no number',)"),
        ("warning({'no': 'text'})", "warning", "{'no': 'text'}"),
    ],
)
def test_a_library_that_logs_oddly_is_not_made_to_fail(code: str, level: str, message: str, line_of: Line) -> None:
    line = line_of(f"logging.getLogger('library').{code}")
    assert (line["level"], line["message"]) == (level, message)


# Where it goes


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_a_reader_that_goes_away_stops_nobody(style: str) -> None:
    """`attune serve 2>&1 | head`"""
    code = (
        f"{PRELUDE}\nconfigure('info', {style!r})\nfor n in range(1000):\n    log.info('a line', n=n)\nprint('the end')"
    )
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=write, check=False, text=True, timeout=30
    )
    os.close(write)
    assert done.stdout == "the end\n"


# Stages


@pytest.mark.parametrize(
    ("stages", "level", "shown"),
    [
        ("visible=True, debug=False", "info", ["info"]),  # the demo
        ("visible=False, debug=False", "info", []),  # a server
        ("visible=False, debug=True", "debug", ["debug"]),  # a server with log.level = debug
        ("visible=True, debug=True", "debug", ["info"]),  # the demo with log.level = debug
    ],
)
def test_stages_are_seen_in_the_demo_and_are_debug_otherwise(
    stages: str, level: str, shown: list[str], lines_of: Lines
) -> None:
    lines = lines_of(f"Stages({stages}).log('rule matched', event=7, rule='a.b', execution=None)", level)
    assert [line["level"] for line in lines] == shown
    for line in lines:
        assert (line["message"], line["event"], line["rule"]) == ("rule matched", 7, "a.b")
        assert "execution" not in line

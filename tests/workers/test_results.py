"""Results: what is made of an exit and of what was printed, without processes."""

import pytest

from attune.base.json import Json, dumps, unstorable
from attune.catalog.model import OutputFormat
from attune.executions.states import Step
from attune.workers import results
from attune.workers.processes import Exit
from attune.workers.results import MAX_DATA, MAX_TEXT, MAX_YAML, Ended, Printed

TEXT, JSON, YAML, JSONL = OutputFormat.TEXT, OutputFormat.JSON, OutputFormat.YAML, OutputFormat.JSONL
WELL = Exit(0, None, timed_out=False, stopped=False)


def ended(stdout: bytes, output: OutputFormat = TEXT, how: Exit = WELL) -> Ended:
    """What an execution that printed this comes to."""
    last = stdout.decode(errors="replace").splitlines()
    printed = Printed(stdout[:MAX_DATA], len(stdout), 0, (), last, 10_000_000)
    return results.of_process(how, printed, output, 5, 60)


READABLE: list[tuple[OutputFormat, bytes, Json]] = [
    (JSON, b'{"a": [1, 2.5, null]}\n', {"a": [1, 2.5, None]}),
    # The last line, when what comes before is chatter.
    (JSON, b'loading\ndone: {}\n{"a": 1}\n\n', {"a": 1}),
    (JSON, b"chatter\r\n7\r\n", 7),
    # The whole, when it can be read as one, though its last line could be as well.
    (JSON, b'{\n"a":\n1\n}', {"a": 1}),
    (JSON, b"null", None),
    (JSONL, b'{"a": 1}\n\n  \n[2]\r\n3', [{"a": 1}, [2], 3]),
    (JSONL, b"", []),
    (YAML, b"a: 1\nb: [x, 2.5, yes]\n", {"a": 1, "b": ["x", 2.5, True]}),
    # What YAML knows and JSON does not becomes text.
    (YAML, b"2026-03-01: 2026-03-01T12:00:00Z\n", {"2026-03-01": "2026-03-01T12:00:00+00:00"}),
    (YAML, b"1: one\n", {"1": "one"}),
    (YAML, b"", None),
]


@pytest.mark.parametrize(("output", "printed", "data"), READABLE)
def test_output_is_read_in_the_format_that_the_action_declares(
    output: OutputFormat, printed: bytes, data: Json
) -> None:
    found = ended(printed, output)

    assert found == Ended(
        Step.COMPLETE,
        {
            "exit_code": 0,
            "duration_ms": 5,
            "succeeded": True,
            "stdout_bytes": len(printed),
            "stderr_bytes": 0,
            "data": data,
        },
    )


UNREADABLE = [
    (JSON, b"", "json"),
    (JSON, b"no json", "json"),
    (JSON, b"[1]\nno json", "json"),
    (JSON, b"NaN", "json"),
    (JSON, b'"\xff"', "json"),
    (JSON, b'"\\ud800"', "json"),
    (JSON, b'{"a": "\\u0000"}', "NUL"),
    (JSON, b"[" * 500 + b"]" * 500, "nested"),
    (JSON, b"[" * 100_000, "json"),
    (JSONL, b"1\n{\n", "jsonl"),
    (YAML, b"a: [", "yaml"),
    (YAML, b"a: \x00", "yaml"),
    (YAML, b"--- 1\n--- 2\n", "yaml"),
    (YAML, b"a: .nan", "infinite"),
    (YAML, b"[" * 1_500, "nested"),
    # What needs an object of Python, or makes much of little.
    (YAML, b"!!python/object/apply:os.system [id]", "yaml"),
    (YAML, b"a: &a [1]\nb: *a\n", "aliases"),
    (YAML, b"!!bool maybe", "yaml"),
    (YAML, b"{[1]: 2}", "yaml"),
    # More than is read.
    (JSON, b'"' + b"x" * MAX_DATA + b'"', "bytes are more than"),
    (JSONL, b"1\n" * MAX_DATA, "bytes are more than"),
    (YAML, b"x" * (MAX_YAML + 1), "bytes are more than"),
]


@pytest.mark.parametrize(("output", "printed", "reason"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_output_that_cannot_be_read_fails_with_the_reason_and_is_kept_as_text(
    output: OutputFormat, printed: bytes, reason: str
) -> None:
    found = ended(printed, output)

    assert found.step is Step.FAIL
    assert str(found.result["error"]).startswith(f"Its output is not {output.value}: ")
    assert reason in str(found.result["error"])
    assert (found.result["succeeded"], found.result["exit_code"]) == (False, 0)
    assert "data" not in found.result
    assert "stdout" in found.result
    assert [*unstorable(found.result)] == []


def test_output_of_a_script_that_failed_is_not_read() -> None:
    found = ended(b'{"a": 1}', JSON, Exit(3, None, timed_out=False, stopped=False))

    assert found.step is Step.FAIL
    assert (found.result["stdout"], found.result["error"]) == ('{"a": 1}', 'exit code 3: {"a": 1}')


CUT = [
    # A character that is cut in half is left out, and nothing was replaced.
    ("é".encode() * MAX_TEXT, "é" * (MAX_TEXT // 2), False),
    (b"x" + "é".encode() * MAX_TEXT, "x" + "é" * ((MAX_TEXT - 1) // 2), False),
    (b"\xff" + b"x" * MAX_TEXT, "\ufffd" + "x" * (MAX_TEXT - 1), True),
]


@pytest.mark.parametrize(("printed", "kept", "replaced"), CUT, ids=range(len(CUT)))
def test_text_is_cut_at_a_character_and_the_result_says_so(printed: bytes, kept: str, replaced: bool) -> None:
    result = ended(printed).result

    assert result["stdout"] == kept
    assert result["stdout_truncated"] is True
    assert result.get("stdout_replaced", False) is replaced
    assert result["stdout_bytes"] == len(printed)


def test_text_of_just_the_length_that_is_kept_is_not_cut() -> None:
    result = ended(b"x" * MAX_TEXT).result

    assert result["stdout"] == "x" * MAX_TEXT
    assert not [name for name in result if "truncated" in name or "replaced" in name]


STOPPED = [
    (Exit(None, "SIGTERM", timed_out=True, stopped=True), Step.TIME_OUT, "longer than 60 s"),
    (Exit(None, "SIGKILL", timed_out=False, stopped=True), Step.CANCEL, "cancelled"),
    # Who was told to end and ends with 0 did not do what it was to do.
    (Exit(0, None, timed_out=True, stopped=True), Step.TIME_OUT, "longer than 60 s"),
    (Exit(0, None, timed_out=False, stopped=True), Step.CANCEL, "cancelled"),
]


@pytest.mark.parametrize(("how", "step", "error"), STOPPED)
def test_who_was_stopped_ended_by_that_whatever_its_exit_code(how: Exit, step: Step, error: str) -> None:
    """T-35, T-37: what a process ended with was all that counted."""
    found = ended(b"so far", how=how)

    assert found.step is step
    assert error in str(found.result["error"])
    assert (found.result["stdout"], found.result["succeeded"]) == ("so far", False)
    assert found.result.get("cancelled", False) is (step is Step.CANCEL)


def test_an_execution_that_was_stopped_because_attune_stops_was_not_cancelled() -> None:
    found = results.abandoned(ended(b"so far", how=Exit(None, "SIGTERM", timed_out=False, stopped=True)))

    assert (found.step, found.result["stdout"]) == (Step.ABANDON, "so far")
    assert "cancelled" not in found.result
    assert "Attune was stopped" in str(found.result["error"])


def test_a_result_that_cannot_be_stored_leaves_an_end_that_can() -> None:
    """An execution whose result nobody can store must not stay open for ever."""
    found = results.unstorable_result(ended(b"fine"), ValueError("a\x00b\ud800"))

    assert found.step is Step.COMPLETE
    assert found.result["succeeded"] is True
    assert "could not be stored: ValueError: a\ufffdb" in str(found.result["error"])
    assert [*unstorable(found.result)] == []
    assert dumps(found.result)

"""Shell and Python actions, as real processes: what they are given, and what becomes of them."""

import os
import sys
import threading
from contextlib import suppress
from typing import Any

import anyio
import pytest

from attune.base.json import JsonObject
from attune.catalog.model import OutputFormat, Runtime
from attune.executions.states import Step
from attune.workers.guard import end_leftovers
from attune.workers.processes import Stop
from tests.support.waiting import eventually
from tests.workers.parts import TRACE, Workshop, no_open_files_left, open_files

LARGE: JsonObject = {"text": "x" * 5_000_000}

# What a script finds itself in, as JSON.
_LOOK = """
import json, os
variables = open("/proc/self/environ").read().split("\\0")[:-1]
print(json.dumps({
    "environment": dict(variable.split("=", 1) for variable in variables),
    "directory": os.getcwd(),
    "leads": os.getpid() == os.getpgid(0) == os.getsid(0),
    "files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:3],
    "count": len(os.listdir("/proc/self/fd")),
}))
"""


@pytest.mark.parametrize(
    ("runtime", "script"),
    [(Runtime.SHELL, "cat"), (Runtime.PYTHON, "import sys; print(sys.stdin.read())")],
    ids=["shell", "python"],
)
async def test_parameters_come_on_stdin_as_one_json_document(workshop: Workshop, runtime: Runtime, script: str) -> None:
    """T-43: secrets of the system were mixed into the parameters of every action."""
    parameters: JsonObject = {"name": "Grüße 🎈", "list": [1, 2.5, None, True], "deep": {"a": {"b": "\n"}}}

    ended = await workshop.run(script, runtime=runtime, parameters=parameters, output=OutputFormat.JSON)

    assert (ended.step, ended.result["data"]) == (Step.COMPLETE, parameters)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a process its first environment")
async def test_a_script_finds_itself_in_exactly_the_surroundings_that_the_docs_promise(workshop: Workshop) -> None:
    """T-39 and section 8 of the design: nothing that Attune happened to be started with."""
    ended = await workshop.run(
        _LOOK, runtime=Runtime.PYTHON, output=OutputFormat.JSON, rule="tools.rule", trigger="tools.trigger"
    )

    found: Any = ended.result["data"]
    inherited = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")
    assert found["environment"] == {
        **{name: os.environ[name] for name in inherited if name in os.environ},
        "ATTUNE_BOOT_ID": workshop.boot,
        "ATTUNE_EXEC_ID": "1",
        "ATTUNE_ACTION": "tools.script",
        "ATTUNE_PACK_REF": "tools",
        "ATTUNE_API_URL": "http://127.0.0.1:1",
        "ATTUNE_ARTIFACTS_DIR": str(workshop.folder / "artifacts"),
        "ATTUNE_RUNTIME_ENVS_DIR": str(workshop.folder / "envs"),
        "ATTUNE_PARAMETER_DELIVERY": "stdin",
        "ATTUNE_PARAMETER_FORMAT": "json",
        "ATTUNE_RULE": "tools.rule",
        "ATTUNE_TRIGGER": "tools.trigger",
        "TRACEPARENT": TRACE,
    }
    assert found["directory"] == str(workshop.root)
    assert found["leads"], "it must be the leader of a session and a group of its own"
    # Its three streams, and the folder that it lists.
    assert (found["files"], found["count"]) == ([0, 1, 2], 4)


# A script, and what its result holds beside the usual. `stdout` is what a script that completes printed.
ENDS: list[tuple[str, str | bytes, Step, dict[str, Any]]] = [
    ("ends well", "echo fine", Step.COMPLETE, {"exit_code": 0, "stdout": "fine\n", "succeeded": True}),
    ("is empty", "", Step.COMPLETE, {"exit_code": 0, "stdout": "", "stdout_bytes": 0}),
    # What is said on stderr alone is no failure.
    ("warns", "echo careful >&2", Step.COMPLETE, {"stdout": "", "stderr_bytes": 8}),
    ("exits 3 without a word", "exit 3", Step.FAIL, {"exit_code": 3, "error": "exit code 3", "succeeded": False}),
    ("exits 3 and says why", "echo out; echo why >&2; exit 3", Step.FAIL, {"error": "exit code 3: why"}),
    # Up to five lines of stderr, else one of stdout.
    (
        "exits with many words",
        "seq 9 >&2; exit 1",
        Step.FAIL,
        {"error": "exit code 1: 5\n6\n7\n8\n9", "stderr_bytes": 18},
    ),
    ("says why on stdout", "echo first; echo last; echo; exit 1", Step.FAIL, {"error": "exit code 1: last"}),
    ("kills itself", "kill -KILL $$", Step.FAIL, {"exit_code": None, "error": "killed by SIGKILL"}),
    ("dies of a signal without a name", "kill -40 $$", Step.FAIL, {"signal": "signal 40"}),
    # 255 is what exit -1 means, and no signal.
    ("exits with 255", "exit 255", Step.FAIL, {"exit_code": 255, "error": "exit code 255"}),
    ("is no shell script", "if then", Step.FAIL, {"exit_code": 2}),
    ("prints what is no UTF-8", b"printf 'a\\xff\\xfeb'", Step.COMPLETE, {"stdout": "a��b", "stdout_replaced": True}),
    ("prints NUL", "printf 'a\\0b'", Step.COMPLETE, {"stdout": "a�b", "stdout_bytes": 3, "stdout_replaced": True}),
    (
        "fails with NUL and no UTF-8",
        "printf 'a\\0b\\xff' >&2; exit 1",
        Step.FAIL,
        {"error": "exit code 1: a�b�", "stderr_bytes": 4},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("script", "step", "holds"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS])
async def test_a_result_says_how_a_script_ended(
    workshop: Workshop, script: str | bytes, step: Step, holds: dict[str, Any]
) -> None:
    ended = await workshop.run(script)

    assert ended.step is step
    assert {name: ended.result[name] for name in holds} == holds


@pytest.mark.parametrize(
    "script",
    [
        # Closes its input, and goes on for longer than it takes to notice.
        "exec <&-; sleep 0.1",
        # Ends without a look at it.
        "exit 0",
        # Is still there when nobody takes the rest.
        "head -c 10 > /dev/null; sleep 0.1",
        # T-38: what was written completely before anything was read stood still.
        "cat | cat",
    ],
)
async def test_large_parameters_hold_nobody_up_whatever_becomes_of_them(workshop: Workshop, script: str) -> None:
    ended = await workshop.run(script, parameters=LARGE)

    assert ended.step is Step.COMPLETE


async def test_large_parameters_that_nobody_reads_do_not_keep_a_script_beyond_its_time(workshop: Workshop) -> None:
    """T-38: the time ran only once all was written."""
    ended = await workshop.run("sleep 1000", parameters=LARGE, timeout=0.2)

    assert ended.step is Step.TIME_OUT


@pytest.mark.parametrize("place", ["missing", "a folder"])
async def test_a_script_that_is_not_there_is_named(workshop: Workshop, place: str) -> None:
    if place == "a folder":
        (workshop.root / "actions" / "script").mkdir()

    ended = await workshop.run(None)

    assert ended.step is Step.FAIL
    assert ended.result["error"] == f"The script {workshop.root}/actions/script of tools.script is missing."


async def test_a_script_need_not_be_executable(workshop: Workshop) -> None:
    (workshop.root / "actions" / "script").touch(mode=0o600)

    assert (await workshop.run("echo fine")).step is Step.COMPLETE


async def test_a_hundred_megabytes_are_counted_and_cut(workshop: Workshop) -> None:
    ended = await workshop.run("head -c 100000000 /dev/zero | tr '\\0' x; echo end >&2")

    assert ended.step is Step.COMPLETE
    assert ended.result["stdout_bytes"] == 100_000_000
    assert ended.result["stdout"] == "x" * 64_000
    assert ended.result["stdout_truncated"] is ended.result["stdout_log_truncated"] is True
    log = workshop.logs.path(1, "stdout").read_bytes()
    assert log == b"x" * 10_000_000 + b"\n[attune: cut here, 90000000 bytes more were printed]\n"
    assert workshop.logs.read(1, "stderr", None) == "end\n"


async def test_a_flood_on_stderr_is_cut_as_well(workshop: Workshop) -> None:
    workshop.log_limit = 1_000

    ended = await workshop.run("yes | head -c 100000 >&2; echo the reason >&2; exit 1")

    assert ended.result["stderr_log_truncated"] is True
    assert str(ended.result["error"]).endswith("the reason")
    assert workshop.logs.path(1, "stderr").stat().st_size < 1_100


async def test_a_child_that_holds_stdout_is_ended_with_its_script(workshop: Workshop) -> None:
    ended = await workshop.run("sleep 1000 & echo done")

    assert (ended.step, ended.result["stdout"]) == (Step.COMPLETE, "done\n")
    await eventually(lambda: workshop.processes() == [])


@pytest.mark.skipif(sys.platform != "linux", reason="setsid and the guard are Linux's")
async def test_a_child_that_leaves_the_group_with_all_streams_holds_neither_the_script_nor_its_pipes(
    workshop: Workshop,
) -> None:
    """The large parameters fill a pipe that nobody will ever read, and that stays open on the other side."""
    async with no_open_files_left():
        ended = await workshop.run(_leaving("sleep 1000"), parameters=LARGE)
        await anyio.wait_all_tasks_blocked()

    assert (ended.step, ended.result["stdout"]) == (Step.COMPLETE, "done\n")
    assert workshop.processes() != [], "it left the group, so it goes on until Attune ends"
    await end_leftovers(workshop.boot)


@pytest.mark.skipif(sys.platform != "linux", reason="setsid and the guard are Linux's")
async def test_what_a_child_outside_the_group_prints_later_hurts_nobody(workshop: Workshop) -> None:
    ended = await workshop.run(_leaving("yes"))

    assert ended.step is Step.COMPLETE
    # SIGPIPE: nobody holds the other end any more.
    await eventually(lambda: workshop.processes() == [])


async def test_a_script_that_takes_too_long_gets_a_chance_to_tidy_up(workshop: Workshop) -> None:
    """T-37: a timeout was a failure like any other."""
    script = "trap 'echo tidied; exit 0' TERM; echo started; while :; do sleep 0.01; done"

    ended = await workshop.run(script, timeout=0.3)

    assert ended.step is Step.TIME_OUT
    assert ended.result["error"] == "It ran longer than 0.3 s and was stopped."
    assert (ended.result["stdout"], ended.result["succeeded"]) == ("started\ntidied\n", False)


async def test_a_script_and_its_children_that_ignore_sigterm_are_killed(workshop: Workshop) -> None:
    workshop.grace = 0.1

    ended = await workshop.run("trap '' TERM; sleep 1000 & while :; do sleep 1000; done", timeout=0.2)

    assert (ended.step, ended.result["signal"]) == (Step.TIME_OUT, "SIGKILL")
    await eventually(lambda: workshop.processes() == [])


async def test_a_child_is_given_the_grace_as_well_though_its_shell_dies_at_once(workshop: Workshop) -> None:
    told = workshop.folder / "told"
    child = f"trap 'sleep 0.1; echo tidied > {told}; exit' TERM; echo ready; while :; do sleep 0.01; done"

    async with anyio.create_task_group() as tasks:
        stop = Stop()
        tasks.start_soon(_ask_when_printed, workshop, stop)
        ended = await workshop.run(f"({child}) & wait", stop=stop)

    assert ended.step is Step.CANCEL
    assert told.read_text() == "tidied\n"


async def test_a_script_that_stopped_itself_can_be_ended(workshop: Workshop) -> None:
    workshop.grace = 0.1

    ended = await workshop.run("kill -STOP $$", timeout=0.2)

    assert (ended.step, ended.result["signal"]) == (Step.TIME_OUT, "SIGKILL")


async def test_what_a_cancelled_script_printed_is_kept_and_cancelled_is_no_matter_of_words(workshop: Workshop) -> None:
    """T-36: the state was read from the text of the error."""
    async with anyio.create_task_group() as tasks:
        stop = Stop()
        tasks.start_soon(_ask_when_printed, workshop, stop)
        ended = await workshop.run("echo started; sleep 1000", stop=stop)

    assert (ended.step, ended.result["stdout"]) == (Step.CANCEL, "started\n")
    assert (ended.result["cancelled"], ended.result["signal"]) == (True, "SIGTERM")
    assert (await workshop.run("echo It was cancelled. >&2; exit 1")).step is Step.FAIL


async def test_a_script_that_was_faster_than_its_cancellation_counts_as_it_ended(workshop: Workshop) -> None:
    stop = Stop()

    ended = await workshop.run("exit 0", stop=stop)
    stop.ask()

    assert ended.step is Step.COMPLETE


async def test_a_worker_that_is_cancelled_leaves_nothing_running(workshop: Workshop) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(workshop.run, "trap '' TERM; sleep 1000 & echo started; while :; do sleep 1000; done")
        await _printed(workshop)
        tasks.cancel_scope.cancel()

    await eventually(lambda: workshop.processes() == [])


async def test_many_scripts_at_once_do_not_mix_their_output(workshop: Workshop) -> None:
    results: dict[int, Any] = {}
    await workshop.run("cat")

    async def run(number: int) -> None:
        ended = await workshop.run(None, parameters={"n": number}, output=OutputFormat.JSON)
        results[number] = ended.result["data"]

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(run, number)

    assert results == {number: {"n": number} for number in range(40)}


async def test_an_environment_that_is_too_large_is_a_failure_that_says_so(workshop: Workshop) -> None:
    workshop.surroundings = {"api_url": "x" * 3_000_000}

    ended = await workshop.run("echo fine")

    assert ended.step is Step.FAIL
    assert "Argument list too long" in str(ended.result["error"])
    assert not workshop.logs.path(1, "stdout").exists()


async def test_too_many_open_files_are_a_failure_that_says_so_and_leaves_no_more_of_them(workshop: Workshop) -> None:
    """Wherever on the way to a process the table of files is full."""
    import resource

    await workshop.run("echo fine")
    before = open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    steps = []
    for spare in range(16):
        highest = open_files()[-1]
        filler = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
        for one in filler[:spare]:
            os.close(one)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(filler) + 1, hard))
            ended = await workshop.run(None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in filler[spare:]:
                os.close(one)
        steps.append(ended.step)
        assert ended.step is Step.COMPLETE or "Too many open files" in str(ended.result["error"])

    assert (steps[0], steps[-1]) == (Step.FAIL, Step.COMPLETE)
    if sys.version_info < (3, 11, 4):
        # Until then subprocess itself forgot pipes: https://github.com/python/cpython/issues/87474
        for one in set(open_files()) - set(before):
            os.close(one)


async def test_a_process_that_nobody_can_watch_is_not_left_running(workshop: Workshop) -> None:
    """Where asyncio watches with threads, and there can be no more of them when the process has begun already."""
    usual = threading.stack_size(1 << 46)
    try:
        with suppress(RuntimeError):
            await workshop.run("sleep 1000", timeout=0.2)
    finally:
        threading.stack_size(usual)

    await eventually(lambda: workshop.processes() == [])


@pytest.mark.parametrize("trouble", ["full", "no folder"])
async def test_a_log_that_cannot_be_written_keeps_no_script_from_running(workshop: Workshop, trouble: str) -> None:
    if trouble == "full":
        path = workshop.logs.path(1, "stdout")
        path.parent.mkdir(parents=True)
        path.symlink_to("/dev/full")
    else:
        workshop.logs.directory.write_text("")

    ended = await workshop.run("echo fine; echo words >&2")

    assert (ended.step, ended.result["stdout"]) == (Step.COMPLETE, "fine\n")
    assert str(ended.result["log_error"]).startswith("The log could not be written: ")


def _leaving(command: str) -> str:
    """A script that forks twice and ends when its grandchild has a session of its own, and all its streams."""
    return f"""
        setsid --fork sh -c 'touch left; exec {command}' <&0
        while [ ! -e left ]; do sleep 0.01; done
        echo done
    """


async def _printed(workshop: Workshop) -> None:
    await eventually(lambda: workshop.logs.read(1, "stdout", None) != "")


async def _ask_when_printed(workshop: Workshop, stop: Stop) -> None:
    await _printed(workshop)
    stop.ask()

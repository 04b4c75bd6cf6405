"""The guard: what an Attune leaves behind is ended, however it ended itself, and nobody else is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from attune.workers.guard import Guard, end_leftovers
from tests.server.running import environment, processes_with
from tests.support.waiting import eventually
from tests.workers.parts import no_open_files_left

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="without /proc there is no guard")

# Ways to be hard to find and hard to end. Each says that it is ready by making a file.
STUBBORN = [
    "touch ready; sleep 1000",
    # Ignores what can be ignored.
    "trap '' TERM INT HUP; touch ready; while :; do sleep 1000; done",
    # Stopped, it hears of nothing but SIGKILL.
    "touch ready; kill -STOP $$",
    # A daemon: its parent is gone, and it has a session of its own.
    "setsid --fork sh -c 'touch ready; exec sleep 1000'",
    # A member of the group that hides its environment.
    "env -i $(command -v sleep) 1000 & touch ready; wait",
]

# An Attune that is killed while an action of it runs.
_KILLED = """
import asyncio, os, subprocess, sys
from attune.workers.guard import Guard

async def main():
    await Guard(sys.argv[1]).start()
    subprocess.Popen(["sleep", "1000"], env={**os.environ, "ATTUNE_BOOT_ID": sys.argv[1]}, start_new_session=True)
    print("ready", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("script", STUBBORN, ids=range(len(STUBBORN)))
async def test_what_an_earlier_boot_left_behind_is_ended(tmp_path: Path, script: str) -> None:
    boot, other = str(uuid4()), str(uuid4())
    with _left("sleep 1000", other, tmp_path) as innocent, _left(script, boot, tmp_path) as left:
        await eventually((tmp_path / "ready").exists)

        await end_leftovers(boot)

        await eventually(lambda: processes_with(boot) == [])
        assert _members(left.pid) == []
        assert innocent.poll() is None


async def test_a_guard_whose_attune_ended_well_ends_what_left_its_group(tmp_path: Path) -> None:
    boot = str(uuid4())
    guard = Guard(boot)
    async with no_open_files_left():
        await guard.start()
        with _left(STUBBORN[3], boot, tmp_path):
            await eventually((tmp_path / "ready").exists)
            await guard.dismiss()
            assert processes_with(boot) == []
    await guard.dismiss()


async def test_a_guard_outlives_the_kill_of_its_attune_and_ends_its_children() -> None:
    boot = str(uuid4())
    with _attune(boot) as attune:
        # Attune, the guard, and the action.
        assert len(processes_with(boot)) == 3

        attune.kill()

    await eventually(lambda: processes_with(boot) == [])


async def test_a_signal_to_the_group_of_attune_does_not_reach_its_guard() -> None:
    """A terminal sends Ctrl-C to all of a group: the guard must be there when the second one ends Attune at once."""
    boot = str(uuid4())
    with _attune(boot) as attune:
        os.killpg(attune.pid, signal.SIGKILL)

    await eventually(lambda: processes_with(boot) == [])


@pytest.mark.parametrize("boot", ["", "\n", "a", ".*", "0" * 20, "01a213ba-a854-7009-a09f-f7f0dcb682edx"])
def test_what_is_no_boot_id_guards_nobody(boot: str) -> None:
    """A power cut may leave the file that names the boot empty, and nothing is a part of every environment."""
    # Not started: what it would end were it wrong is everything.
    with pytest.raises(ValueError):
        Guard(boot)


async def test_half_a_note_of_the_earlier_boot_ends_nobody(tmp_path: Path) -> None:
    boot = str(uuid4())
    with _left("touch ready; sleep 1000", boot, tmp_path) as innocent:
        await eventually((tmp_path / "ready").exists)

        await end_leftovers(boot[:20])

        assert innocent.poll() is None


@contextmanager
def _attune(boot: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that started its guard and an action, in a group of its own."""
    arguments = [sys.executable, "-c", _KILLED, boot]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment(), process_group=0) as attune:
        assert attune.stdout is not None
        assert attune.stdout.readline() == b"ready\n"
        yield attune


@contextmanager
def _left(script: str, boot: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process as an action of a boot: the leader of a session, with the boot in its environment."""
    process = subprocess.Popen(
        ["bash", "-c", script], env=environment(ATTUNE_BOOT_ID=boot), cwd=folder, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _members(group: int) -> list[int]:
    """The processes of a group that are not dead already."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, process_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(process_group) == group and state != "Z":
                found.append(int(path.parent.name))
    return found

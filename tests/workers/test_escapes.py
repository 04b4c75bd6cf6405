"""What has left the process group of an action is ended with it: a daemon, a double fork, a session of its own."""

import sys

import anyio
import pytest

from attune.executions.states import Step
from attune.workers.processes import Stop
from tests.support.waiting import eventually
from tests.workers.parts import Workshop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="without /proc nothing tells where they have gone")

# Each leaves a process in another session, says so, and goes on.
ESCAPES = [
    "setsid --fork sleep 1000; touch ready; sleep 1000",
    # A double fork, as daemons do it.
    "(setsid sh -c 'sleep 1000 & touch ready' &) ; sleep 1000",
    # One that does not want to end.
    "setsid --fork sh -c \"trap '' TERM; touch ready; while :; do sleep 1000; done\"; sleep 1000",
    # One that makes others for as long as it lives.
    "setsid --fork sh -c 'touch ready; while :; do sleep 1000 & sleep 0.02; done'; sleep 1000",
]


@pytest.mark.parametrize("script", ESCAPES, ids=range(len(ESCAPES)))
async def test_what_has_left_the_group_is_ended_with_a_script_that_takes_too_long(
    workshop: Workshop, script: str
) -> None:
    workshop.grace = 0.2

    ended = await workshop.run(script, timeout=0.5)

    assert ended.step is Step.TIME_OUT
    await eventually(lambda: workshop.processes() == [], within=1)


@pytest.mark.parametrize("script", ESCAPES, ids=range(len(ESCAPES)))
async def test_what_has_left_the_group_is_ended_with_a_script_that_is_cancelled(
    workshop: Workshop, script: str
) -> None:
    workshop.grace = 0.2
    stop = Stop()

    async def cancel() -> None:
        await eventually((workshop.root / "ready").exists)
        stop.ask()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel)
        ended = await workshop.run(script, stop=stop)

    assert ended.step is Step.CANCEL
    await eventually(lambda: workshop.processes() == [], within=1)


async def test_what_has_left_the_group_gets_its_grace_too(workshop: Workshop) -> None:
    daemon = "trap 'echo tidied > tidied; exit 0' TERM; touch ready; while :; do sleep 0.05; done"

    ended = await workshop.run(f'setsid --fork sh -c "{daemon}"; sleep 1000', timeout=0.5)

    assert ended.step is Step.TIME_OUT
    assert (workshop.root / "tidied").read_text() == "tidied\n"


async def test_the_daemon_of_another_execution_is_left_alone(workshop: Workshop) -> None:
    """One that ended by itself may leave a daemon behind: that one goes on until Attune ends."""
    # Until it has left the group, the end of the script is its end as well.
    daemon = "setsid --fork sh -c 'touch ready; exec sleep 1000'"
    await workshop.run(f"{daemon}; while [ ! -e ready ]; do sleep 0.01; done")
    left = workshop.processes()
    workshop.grace = 0.2

    await workshop.run("sleep 1000", timeout=0.2)

    assert workshop.processes() == left != []
    await workshop.end_all()

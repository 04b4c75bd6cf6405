"""The crash points: those that the code has are those that are declared, and off they do nothing."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import attune
from attune.base import crash_points
from attune.base.crash_points import CONSUMED, POINTS, STAGES

SOURCE = "\n".join(path.read_text() for path in Path(attune.__file__).parent.rglob("*.py"))


def test_every_point_that_the_code_reaches_is_declared_and_every_other_one_is_reached() -> None:
    literal = set(re.findall(r'(?<!_)reach\("([a-z_.]+)"\)', SOURCE))
    stages = set(re.findall(r'\.does\("([a-z_]+)"\)', SOURCE))
    consumed = set(re.findall(r'stage="([a-z_]+)"', SOURCE))

    assert consumed == {*CONSUMED}
    assert stages | consumed == {*STAGES}
    of_transactions = {
        f"{stage}.{moment}" for stage in STAGES for moment in ("before_commit", "committed", "handed_over")
    }
    assert literal | of_transactions | {f"{stage}.taken" for stage in CONSUMED} == {*POINTS}


def test_a_process_without_a_crash_file_reaches_every_point_and_lives() -> None:
    for point in POINTS:
        crash_points.reach(point)


@pytest.mark.parametrize(("held", "killed"), [("spawn.after\n", True), ("spawn.before", False), (None, False)])
def test_a_process_kills_itself_at_the_point_that_its_crash_file_holds(
    tmp_path: Path, held: str | None, killed: bool
) -> None:
    file = tmp_path / "crash"
    if held is not None:
        file.write_text(held)
    program = "from attune.base.crash_points import reach; reach('spawn.after')"
    ended = subprocess.run([sys.executable, "-c", program], env={"ATTUNE_CRASH_FILE": str(file)}, check=False)

    assert ended.returncode == (-signal.SIGKILL if killed else 0)

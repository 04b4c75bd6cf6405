"""The data directory: private, and held by one process, which is named to the next."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attune.base.errors import StartError
from attune.base.installation import Installation
from attune.upkeep.data_directory import DataDirectory

HOLD = """
import sys
from pathlib import Path
from attune.base.installation import Installation
from attune.upkeep.data_directory import DataDirectory
directory = DataDirectory(Installation(Path(sys.argv[1])))
directory.acquire()
if len(sys.argv) > 2:
    directory.name_holder(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(data: Path, *url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that holds the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data), *url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (
            ("http://127.0.0.1:8080",),
            r"in use by process {pid} on .*, which answers at http://127\.0\.0\.1:8080\. Stop",
        ),
        ((), r"in use by a process that is just starting"),
    ],
)
def test_t102_the_second_is_refused_and_told_who_holds_it(tmp_path: Path, url: tuple[str, ...], told: str) -> None:
    with held(tmp_path / "data", *url) as holder:
        directory = DataDirectory(Installation(tmp_path / "data"))
        with pytest.raises(StartError, match=told.format(pid=holder.pid)):
            directory.acquire()
    # A process that was killed holds nothing any more.
    directory.acquire()
    directory.release()
    directory.release()


def test_folders_are_private(tmp_path: Path) -> None:
    place = Installation(tmp_path / "data")
    directory = DataDirectory(place)
    directory.acquire()

    for folder in (place.run, place.signing_key.parent, place.socket.parent, place.execution_logs, place.artifacts):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert place.data.stat().st_mode & 0o066 == 0
    directory.release()


def test_a_private_folder_that_others_may_enter_is_refused_by_name(tmp_path: Path) -> None:
    place = Installation(tmp_path / "data")
    place.run.mkdir(parents=True)
    place.run.chmod(0o755)

    with pytest.raises(StartError, match=f"{place.run} must be a folder with mode 0700"):
        DataDirectory(place).acquire()


def test_a_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    place = Installation(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.run.parent.mkdir(parents=True)
    place.run.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StartError, match="must be a folder"):
        DataDirectory(place).acquire()


def test_a_place_that_cannot_be_used_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StartError, match=r"file/data cannot be used: .*--data-dir"):
        DataDirectory(Installation(tmp_path / "file" / "data")).acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

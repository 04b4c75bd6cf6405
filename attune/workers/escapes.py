"""Processes that have left the group of the one that started them: daemons, and what called setsid."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def send(number: signal.Signals | None, marks: Mapping[str, str], process_group: int) -> int:
    """Send a signal, if one is given, to the processes that carry `marks` and are not in the group; how many there
    are."""
    found = _escaped(marks, process_group)
    for pid in found if number else ():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number or 0)
    return len(found)


def _escaped(marks: Mapping[str, str], process_group: int) -> list[int]:
    """Those that were started with all of these variables. Nothing hides one but another environment. On Linux only."""
    if sys.platform != "linux" or not marks:
        return []
    wanted = {f"{name}={value}".encode() for name, value in marks.items()}
    marked = (int(path.name) for path in Path("/proc").glob("[0-9]*") if wanted <= _variables(path))
    return [pid for pid in marked if _group_of(pid) not in {None, process_group}]


def _group_of(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _variables(process: Path) -> set[bytes]:
    try:
        return set((process / "environ").read_bytes().split(b"\0"))
    except OSError:
        # It has ended, or belongs to somebody else.
        return set()

"""What is wrong with the place where Attune keeps its things: checks that need no server."""

import fcntl
import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from attune.base.installation import Installation
from attune.database.storage import free_bytes
from attune.upkeep.doctor import Finding, Level, judged

# `struct flock`: type, whence, start, length and process on Linux; on macOS start, length and process come first.
_FLOCK = "hhqqi" if sys.platform == "linux" else "qqihh"
_PLACES = (0, 4) if sys.platform == "linux" else (3, 2)


def examine(place: Installation, *, is_running: bool, min_free: int) -> list[Finding]:
    """What the checks on the data directory have found; `is_running`: its server answers. `min_free` bytes are enough
    room."""
    if not place.data.is_dir():
        where = f"there is no data directory {place.data}"
        return [Finding("data-directory", Level.UNKNOWN, where, "attune serve makes it; --data-dir names another.")]
    return [_data_directory(place), _free_space(place.data, min_free), _leftovers(place, is_running=is_running)]


def _data_directory(place: Installation) -> Finding:
    try:
        problems = list(_wrong_modes(place))
    except PermissionError as error:
        return Finding("data-directory", Level.UNKNOWN, f"{error.filename} may not be looked at", _AS_USER)
    return judged("data-directory", problems, "Give them to the user of Attune (chown) and close them (chmod).")


_AS_USER = "Run attune doctor as the user of Attune, or as root."


def _wrong_modes(place: Installation) -> Iterator[str]:
    """Everything of an installation has the owner of its data directory, or root's; secrets are for nobody else."""
    owner = place.data.stat().st_uid
    for path, open_to_others in (
        (place.data, 0o055),
        (place.run, 0),
        (place.signing_key.parent, 0),
        (place.signing_key, 0),
        (place.execution_logs, 0o055),
    ):
        found = _stat(path)
        if found is None:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != owner:
            yield f"{path} belongs to user {found.st_uid}, and the data directory to user {owner}"
        if mode & 0o077 & ~open_to_others:
            yield f"{path} has mode {mode:04o}, which lets others in"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _free_space(data: Path, min_free: int) -> Finding:
    free = free_bytes(data)
    problems = [f"{free // 1_000_000:,} MB are free for {data}"] if free < min_free else []
    return judged("free-space", problems, "Make room: nothing is taken from outside, and timers wait.")


def _leftovers(place: Installation, *, is_running: bool) -> Finding:
    if is_running:
        return Finding("leftovers", Level.OK)
    holder = _holder(place.lock)
    if holder is not None:
        return Finding(
            "leftovers",
            Level.PROBLEM,
            f"process {holder} holds {place.lock}, and does not answer",
            "If it is just starting or stopping, wait. Else its log says more; end it, and start attune serve.",
        )
    with suppress(PermissionError):
        left = [str(path) for path in (place.boot, place.description, place.socket) if path.exists()]
        found = [f"the last server did not end cleanly: it left {', '.join(left)}"] if left else []
        return judged("leftovers", found, "Nothing: attune serve cleans up, and ends what still runs.", Level.HINT)
    return Finding("leftovers", Level.UNKNOWN, f"{place.run} may not be looked at", _AS_USER)


def _holder(lock: Path) -> int | None:
    """The process that holds the lock. Only asked, not tried: a server that starts meanwhile must get it."""
    try:
        with lock.open("rb") as file:
            wanted = [0] * 5
            wanted[_PLACES[0]] = fcntl.F_WRLCK
            answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(_FLOCK, *wanted)))
    except OSError:
        return None
    return None if answer[_PLACES[0]] == fcntl.F_UNLCK else answer[_PLACES[1]]

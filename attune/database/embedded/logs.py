"""What the server wrote about itself.

PostgreSQL's collector writes one file a weekday. It empties a file only when it comes to it at midnight, and never for
its size, so the size is bounded here.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

LARGEST = 10 * 1024 * 1024

_BLOCK = 512  # the unit of st_blocks, whatever the file system
_TAIL_BYTES = 4096


def sizes(directory: Path) -> dict[str, int]:
    """The present size of every log file: what `tail` is given to tell old lines from new ones."""
    return {path.name: path.lstat().st_size for path in directory.glob("*.log")}


def tail(directory: Path, since: Mapping[str, int], owner: int, lines: int = 10) -> str:
    """The last lines that were written after `since` was taken; empty when there are none."""
    written = [path for path in directory.glob("*.log") if path.lstat().st_size != since.get(path.name, 0)]
    if not written:
        return ""
    newest = max(written, key=lambda path: path.lstat().st_mtime_ns)
    with _opened(newest, os.O_RDONLY, owner) as handle:
        if handle is None:
            return ""
        size = os.fstat(handle).st_size
        old = since.get(newest.name, 0)
        start = max(old if old < size else 0, size - _TAIL_BYTES)
        text = os.pread(handle, size - start, start).decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def trim(directory: Path, owner: int, largest: int = LARGEST) -> None:
    """Empty every log file that takes more than `largest` bytes, and say so."""
    for path in directory.glob("*.log"):
        # The collector may write on behind the cut; what it leaves is a hole, which counts in the size but not here.
        if path.lstat().st_blocks * _BLOCK <= largest:
            continue
        last = tail(directory, {}, owner)
        with _opened(path, os.O_WRONLY, owner) as handle:
            if handle is not None:
                os.ftruncate(handle, 0)
                log.warning("log of postgres emptied: it was too large", file=str(path), limit=largest, last=last)


@contextmanager
def _opened(path: Path, flags: int, owner: int) -> Iterator[int | None]:
    # The folder is the server's, and we may be root: follow no link out of it, touch nobody else's file.
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        yield None
        return
    try:
        yield handle if os.fstat(handle).st_uid == owner else None
    finally:
        os.close(handle)

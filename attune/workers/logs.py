"""Where the output of executions lies."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

PART = 1_048_576
"""Bytes of a log that are read at once."""

IN_A_FOLDER = 1000
"""Executions whose logs share a folder."""

_BLOCK = 65_536
_FOLDER = re.compile(r"\d{6,}")
_FILE = re.compile(r"(\d+)\.(stdout|stderr)\.log")
_SECTOR = 512

Stream = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")


@dataclass(slots=True)
class Size:
    """What the logs of an execution take on the disk, and when something was written last, in seconds of Unix time."""

    bytes: int = 0
    written_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Logs:
    """The log files below a directory, a thousand executions a folder."""

    directory: Path

    def path(self, execution: int, stream: Stream) -> Path:
        """The file of a stream of an execution; it exists if something was printed."""
        return self.directory / f"{execution // IN_A_FOLDER:06}" / f"{execution}.{stream}.log"

    def read(self, execution: int, stream: Stream, tail: int | None) -> str:
        """What an execution printed, or its last `tail` lines; nothing if it printed nothing."""
        try:
            with self.path(execution, stream).open("rb") as file:
                raw = file.read() if tail is None else _last_lines(file, tail)
        except FileNotFoundError:
            return ""
        return raw.decode("utf-8", errors="replace")

    def part(self, execution: int, stream: Stream, offset: int) -> bytes:
        """What an execution printed from a byte on, as much as is read at once; nothing if there is nothing yet."""
        try:
            with self.path(execution, stream).open("rb") as file:
                file.seek(offset)
                return file.read(PART)
        except FileNotFoundError:
            return b""

    def remove(self, executions: Iterable[int]) -> dict[int, int]:
        """Remove what executions printed, as far as possible; the bytes, by execution."""
        removed: dict[int, int] = {}
        for execution in executions:
            for stream in STREAMS:
                path = self.path(execution, stream)
                with suppress(OSError):
                    size = path.lstat().st_blocks * _SECTOR
                    path.unlink()
                    removed[execution] = removed.get(execution, 0) + size
        return removed

    def folders(self) -> list[Path]:
        """The folders that hold logs, those of the oldest executions first."""
        names = []
        with suppress(FileNotFoundError), os.scandir(self.directory) as entries:
            names = [entry.name for entry in entries if _FOLDER.fullmatch(entry.name) and entry.is_dir()]
        return [self.directory / name for name in sorted(names, key=int)]

    def sizes(self, folder: Path) -> dict[int, Size]:
        """The logs in one of `folders`, by execution."""
        found: dict[int, Size] = {}
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                if match := _FILE.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        status = entry.stat(follow_symlinks=False)
                        size = found.setdefault(int(match[1]), Size())
                        size.bytes += status.st_blocks * _SECTOR
                        size.written_at = max(size.written_at, status.st_mtime)
        return found


def first_of_folder(execution: int) -> int:
    """The first execution whose logs would be in the same folder."""
    return execution - execution % IN_A_FOLDER


def _last_lines(file: BinaryIO, count: int) -> bytes:
    """The last lines of a file, of which no more is read than that takes."""
    end = file.seek(0, os.SEEK_END)
    size = _BLOCK
    while True:
        start = file.seek(max(end - size, 0))
        block = file.read(end - start)
        # The newline at the very end ends a line, and begins none.
        place = len(block) - 1
        for _ in range(count):
            place = block.rfind(b"\n", 0, max(place, 0))
            if place < 0:
                break
        if place >= 0 or start == 0:
            return block[place + 1 :]
        size *= 8

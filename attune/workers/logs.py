"""Where the output of executions lies."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

PART = 1_048_576
"""Bytes of a log that are read at once."""

_BLOCK = 65_536

Stream = Literal["stdout", "stderr"]
STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Logs:
    """The log files below a directory, a thousand executions a folder."""

    directory: Path

    def path(self, execution: int, stream: Stream) -> Path:
        """The file of a stream of an execution; it exists if something was printed."""
        return self.directory / f"{execution // 1000:06}" / f"{execution}.{stream}.log"

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

"""What a process prints: bounded on disk, bounded in memory, and honest about what was cut."""

import codecs
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

_NOTICE = "\n[attune: cut here, {dropped} bytes more were printed]\n"
_TAIL = 8_000


class Output:
    """One stream of a process. Everything up to `limit` bytes goes to a file, the first `head` bytes stay in memory.

    A file that cannot be made or written, because the disk is full, keeps nobody from running: `failure` says why.
    """

    def __init__(self, path: Path, *, limit: int, head: int) -> None:
        self.path = path
        self.total = 0
        self.failure: str | None = None
        self._limit = limit
        self._head_limit = head
        self._head = bytearray()
        self._tail = bytearray()
        self._file: BinaryIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            self._fail(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Take what was printed."""
        room = self._limit - self.total
        if room > 0 and self.failure is None:
            self._store(chunk[:room])
        if len(self._head) < self._head_limit:
            self._head += chunk[: self._head_limit - len(self._head)]
        self._tail = (self._tail + chunk)[-_TAIL:]
        self.total += len(chunk)

    def close(self) -> None:
        """Finish the file: an empty one is removed, a cut one says so."""
        if self._file is None or self._file.closed:
            return
        if self.total > self._limit and self.failure is None:
            self._store(_NOTICE.format(dropped=self.total - self._limit).encode())
        with suppress(OSError):
            self._file.close()
        if self.total == 0:
            self.path.unlink(missing_ok=True)

    @property
    def head(self) -> bytes:
        """The first bytes."""
        return bytes(self._head)

    def last_lines(self, count: int) -> list[str]:
        """The last lines that are not empty."""
        lines = [line for line in clean(bytes(self._tail))[0].splitlines() if line.strip()]
        return lines[-count:]

    def _store(self, chunk: bytes) -> None:
        assert self._file is not None, "without a file there is a failure"
        try:
            self._file.write(chunk)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error.strerror or str(error)


def clean(raw: bytes, *, cut: bool = False) -> tuple[str, bool]:
    """Text that PostgreSQL can store, and whether something had to be replaced: what is no UTF-8, and NUL.

    `cut`: more bytes follow, so that a character that begins at the end is left out.
    """
    decoder = codecs.getincrementaldecoder("utf-8")
    try:
        text, replaced = decoder("strict").decode(raw, final=not cut), False
    except UnicodeDecodeError:
        text, replaced = decoder("replace").decode(raw, final=not cut), True
    return text.replace("\x00", "\ufffd"), replaced or "\x00" in text

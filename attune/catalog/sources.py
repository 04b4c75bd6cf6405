"""The files of a pack, as they lie in its folder: what is kept of it, and what tells whether it changed."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attune.catalog.yamls import MAX_BYTES

# Raised when this release makes something else of the same files than the one before: then all are read again.
_FORMAT: Final = 2
_MAX_TOTAL: Final = 20_000_000
_MAX_FILES: Final = 2_000
_NOT_OURS: Final = frozenset({"__pycache__", "node_modules", "venv"})


@dataclass(frozen=True, slots=True)
class Source:
    """A file. `path` is below the folder of the pack; `content` is None for what is too large to be kept, and then
    `stamp` tells whether it changed."""

    path: str
    content: bytes | None
    executable: bool
    stamp: str = ""


def is_ours(name: str) -> bool:
    """Whether a file or folder of that name belongs to a pack: not what is hidden, made by tools, or a backup."""
    return not name.startswith(".") and not name.endswith("~") and name not in _NOT_OURS


def read_sources(directory: Path) -> list[Source]:
    """The files of a pack, folder by folder. What is no file, or cannot be read, is left out."""
    sources: list[Source] = []
    total = 0
    for path in _paths(directory):
        source = _read(directory, path, MAX_BYTES if total < _MAX_TOTAL and len(sources) < _MAX_FILES else -1)
        if source is not None:
            total += len(source.content or b"")
            sources.append(source)
    return sources


def checksum_of(sources: Sequence[Source]) -> str:
    """A checksum of all files of a pack."""
    digest = hashlib.sha256(f"{_FORMAT}\n".encode())
    for source in sources:
        content = source.stamp.encode() if source.content is None else source.content
        digest.update(f"{source.path} {source.executable:d} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _paths(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(filter(is_ours, folders))
        yield from (Path(folder, name) for name in sorted(filter(is_ours, files)))


def _read(directory: Path, path: Path, at_most: int) -> Source | None:
    try:
        name = path.relative_to(directory).as_posix()
        name.encode()
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return None
        content = path.read_bytes() if found.st_size <= at_most else None
    except (OSError, UnicodeEncodeError):
        return None
    return Source(name, content, bool(found.st_mode & 0o100), f"{found.st_size} {found.st_mtime_ns}")

"""Folders that the servers of tests may use."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_for_servers() -> Iterator[Path]:
    """A new folder, removed afterwards; as root it lets the user of PostgreSQL through, which pytest's own does not."""
    folder = Path(tempfile.mkdtemp(prefix="attune-test-"))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

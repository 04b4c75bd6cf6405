"""Folders for real servers."""

import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def folder(base: Path) -> Path:
    """A folder for one server, through which the user of PostgreSQL can get when the server is root's."""
    made = Path(tempfile.mkdtemp(dir=base))
    made.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return made

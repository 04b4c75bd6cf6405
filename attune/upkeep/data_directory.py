"""The data directory: made, locked, and named to those who come second."""

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

import orjson

from attune.base.errors import StartError
from attune.base.installation import Installation


class DataDirectory:
    """The folder of an installation, held by this process until `release`."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the folder and take its lock. Raises StartError that names the process which has it."""
        self._make()
        descriptor = os.open(self.installation.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 4096)
            os.close(descriptor)
            raise StartError(
                f"The data directory {self.installation.data} is in use by {_described(holder)}. "
                "Stop that one, or choose another with --data-dir."
            ) from error
        self._descriptor = descriptor

    def name_holder(self, url: str | None) -> None:
        """Write down who holds the lock, and where it answers, if it does."""
        assert self._descriptor is not None, "the lock is held"
        holder = orjson.dumps({"pid": os.getpid(), "host": socket.gethostname(), "url": url})
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, holder, 0)

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _make(self) -> None:
        data = self.installation.data
        try:
            if not data.exists():
                data.mkdir(parents=True)
                # As root, PostgreSQL runs as somebody else and must get through; what is private lies deeper.
                data.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for private in (
                self.installation.run,
                self.installation.signing_key.parent,
                self.installation.socket.parent,
            ):
                _make_private(private)
            for folder in (
                self.installation.execution_logs,
                self.installation.artifacts,
                self.installation.environments,
            ):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"The data directory {data} cannot be used: {error}. Choose another with --data-dir."
            ) from error


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StartError(
            f"{folder} must be a folder with mode 0700 that belongs to the user of Attune. Mend or remove it."
        )


def _described(holder: bytes) -> str:
    try:
        known = orjson.loads(holder)
        does = f"answers at {known['url']}" if known["url"] else "works on the data while no server runs"
        return f"process {known['pid']} on {known['host']}, which {does}"
    except (orjson.JSONDecodeError, KeyError):
        return "a process that is just starting"

"""Where the files of an installation lie, for the server and for those who look for it."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# What the kernels take for the path of a socket, less the closing NUL.
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103


@dataclass(frozen=True, slots=True)
class Installation:
    """The data directory and what is in it."""

    data: Path

    @property
    def lock(self) -> Path:
        return self.data / "attune.lock"

    @property
    def postgres(self) -> Path:
        return self.data / "postgres"

    @property
    def run(self) -> Path:
        """What only exists while the server runs, private to its user."""
        return self.data / "run"

    @property
    def boot(self) -> Path:
        """The id of the boot that runs, or that did not end cleanly."""
        return self.run / "boot"

    @property
    def socket(self) -> Path:
        """Where the server answers its own user. A path may be too long for a socket; then a private folder beside the
        temporary files holds it."""
        inside = self.run / "attune.sock"
        if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH:
            return inside
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()
        return Path(tempfile.gettempdir()) / f"attune-run-{digest[:16]}" / "attune.sock"

    @property
    def description(self) -> Path:
        """What the running server tells the command line: its address, and how psql reaches its database."""
        return self.run / "server.json"

    @property
    def signing_key(self) -> Path:
        return self.data / "secrets" / "signing.key"

    @property
    def execution_logs(self) -> Path:
        return self.data / "logs" / "executions"

    @property
    def packs(self) -> Path:
        """Where packs are looked for, unless settings name other folders."""
        return self.data / "packs"

    @property
    def artifacts(self) -> Path:
        return self.data / "artifacts"

    @property
    def environments(self) -> Path:
        return self.data / "environments"


def installation(data: Path | None, environment: Mapping[str, str] = os.environ) -> Installation:
    """The installation in `data`, else in ATTUNE_DATA_DIR, else in this user's place (root's is /var/lib/attune)."""
    if data is None:
        chosen = environment.get("ATTUNE_DATA_DIR")
        data = Path(chosen) if chosen else _default(environment)
    return Installation(data.expanduser().absolute())


def user_config(environment: Mapping[str, str] = os.environ) -> Path:
    """The config file of this user (XDG Base Directory Specification)."""
    home = environment.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "attune" / "config.toml"


def _default(environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/attune")
    home = environment.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "attune"

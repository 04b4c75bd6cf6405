"""The time zone of this machine, by the name that the IANA gives it."""

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

_FOLDER = "zoneinfo/"


def machine_zone(
    environment: Mapping[str, str], link: Path = Path("/etc/localtime"), name_file: Path = Path("/etc/timezone")
) -> str | None:
    """The zone of people who work on this machine; None if it has no name."""
    named = environment.get("TZ", "").removeprefix(":")
    if named and named != str(link):
        return _zone(named)
    if link.is_symlink():
        found = _zone(str(link.readlink()))
        if found is not None:
            return found
    try:
        return _zone(name_file.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return None


def _zone(text: str) -> str | None:
    """The zone that a name, or a path to its file, stands for."""
    name = text.rpartition(_FOLDER)[2].removeprefix("posix/")
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        return None

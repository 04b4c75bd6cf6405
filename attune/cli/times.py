"""Times for people: in the zone of this machine, to the second. Programs get RFC 3339."""

import re
from datetime import datetime

from attune.cli.talk import CommandError, Exit

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SPAN = re.compile(r"[1-9][0-9]{0,4}[smhd]")


def local(text: str) -> str:
    """`text` as it is, unless it is a time of RFC 3339: then that time here."""
    return f"{_here(text):%Y-%m-%d %H:%M:%S}" if _RFC3339.fullmatch(text) else text


def clock(text: str) -> str:
    """Hours, minutes and seconds of a time of RFC 3339, here."""
    return f"{_here(text):%H:%M:%S}"


def lasted(start: str, end: str) -> str:
    """How much time passed between two times of RFC 3339."""
    return duration((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())


def duration(seconds: float) -> str:
    """So many seconds, in the two largest units that say something."""
    seconds = max(seconds, 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def counted(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def span(text: str) -> str:
    """A span of time as a person types it, such as 24h."""
    if not _SPAN.fullmatch(text):
        raise CommandError(f"{text!r} is no span of time; write 90s, 30m, 24h or 7d.", Exit.USAGE)
    return text


def _here(text: str) -> datetime:
    # `fromisoformat` reads Z and any number of digits since Python 3.11.
    return datetime.fromisoformat(text).astimezone()

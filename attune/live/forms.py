"""How notes look on the wire: as server-sent events, with names or without, and as messages of a WebSocket."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import orjson

from attune.live.notes import Note

Form: TypeAlias = Callable[[str, Sequence[Note]], list[bytes]]
"""Makes of notes, of a boot, what is sent at once."""

RETRY_MS: Final = 2000
"""What a client is to wait before it comes back."""


def named(boot: str, notes: Sequence[Note]) -> list[bytes]:
    """Events that have the type of the notification as their name."""
    run = boot.encode()
    events = [b"id: %b-%d\nevent: %b\ndata: %b\n\n" % (run, one.number, one.kind.encode(), one.json) for one in notes]
    return [b"".join(events)]


def unnamed(boot: str, notes: Sequence[Note]) -> list[bytes]:
    """Events without names."""
    run = boot.encode()
    return [b"".join([b"id: %b-%d\ndata: %b\n\n" % (run, one.number, one.json) for one in notes])]


def messages(_: str, notes: Sequence[Note]) -> list[bytes]:
    """A message each."""
    return [
        orjson.dumps(
            {
                "type": "notification",
                "notification_type": note.kind,
                "entity_type": note.kind.entity,
                "entity_id": note.notification.entity_id,
                "user_id": None,
                "payload": orjson.Fragment(note.json),
                "timestamp": note.notification.at,
            },
            option=orjson.OPT_UTC_Z,
        )
        for note in notes
    ]


def event(name: str, data: dict[str, str], position: str | None = None) -> bytes:
    """An event of the stream itself; after it, a client stands at `position`."""
    text = b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(data))
    return text if position is None else b"id: %b\n%b" % (position.encode(), text)

"""What the server tells as it happens: server-sent events, in the format of the HTML standard."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Any

from attune.cli.client import Client, is_away
from attune.cli.talk import CommandError, say

_AGAIN = 1.0
_TICK = 0.3
_AHEAD = 100


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a stream. One without a name is a message."""

    name: str
    data: Any


class EventReader:
    """Makes events of what comes, in whatever pieces. `position` is the id to come back with."""

    def __init__(self) -> None:
        self.position: str | None = None
        self._rest = b""

    def read(self, piece: bytes) -> list[Told]:
        """The events that are complete with this piece."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        return [told for block in blocks if (told := self._event(block.decode())) is not None]

    def begin(self) -> None:
        """Another connection: what was not complete comes again."""
        self._rest = b""

    def _event(self, block: str) -> Told | None:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        self.position = fields.get("id", self.position)
        if "data" not in fields:
            return None
        return Told(fields.get("event", "message"), json.loads(fields["data"]))


def follow(client: Client, path: str, **query: Any) -> Iterator[Sequence[Told]]:
    """What a stream tells, as it comes, and nothing when nothing has come for a moment. Goes on with a server that is
    started again. Raises CommandError when there is none at first, or when it refuses."""
    heard: Queue[Sequence[Told] | CommandError] = Queue(_AHEAD)
    Thread(target=_listen, args=(client, path, query, heard), daemon=True).start()
    while True:
        try:
            told = heard.get(timeout=_TICK)
        except Empty:
            yield ()
            continue
        if isinstance(told, CommandError):
            raise told
        yield told


def _listen(client: Client, path: str, query: Mapping[str, Any], heard: "Queue[Sequence[Told] | CommandError]") -> None:
    reader = EventReader()
    is_lost = False
    while True:
        try:
            reader.begin()
            for piece in client.stream(path, reader.position, **query):
                is_lost = False
                heard.put(reader.read(piece))
        except CommandError as error:
            if reader.position is None or not is_away(error):
                heard.put(error)
                return
            if not is_lost:
                say(f"{error.message}\nTrying again.")
            is_lost = True
        time.sleep(_AGAIN)

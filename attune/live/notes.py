"""What happened, as it is kept for those who look; and which of it somebody wants."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import orjson

from attune.bus.messages import Entity, NotificationCreated, NotificationType

_REFS = ("action_ref", "rule_ref", "trigger_ref", "ref")


class Note:
    """A notification with its number. Its JSON is made once, when the first reader wants it."""

    __slots__ = ("_json", "entity_id", "kind", "message", "number")

    def __init__(self, number: int, message: NotificationCreated) -> None:
        self.number = number
        self.message = message
        self.kind = message.notification_type
        self.entity_id = message.entity_id
        self._json: bytes | None = None

    @property
    def refs(self) -> list[str]:
        """What it has to do with."""
        payload = self.message.payload
        return [str(payload[name]) for name in _REFS if payload.get(name) is not None]

    @property
    def status(self) -> str | None:
        """The state that the entity came to, if it has states."""
        status = self.message.payload.get("status")
        return None if status is None else str(status)

    @property
    def json(self) -> bytes:
        """The payload, as JSON."""
        if self._json is None:
            payload = {
                "entity_type": self.kind.entity,
                "entity_id": self.entity_id,
                "id": self.entity_id,
                **self.message.payload,
            }
            self._json = orjson.dumps(payload, option=orjson.OPT_UTC_Z)
        return self._json


@dataclass(frozen=True, slots=True)
class Filter:
    """What somebody wants: what fits all of these sets. An empty one, `entities` apart, excludes nothing."""

    entities: frozenset[Entity]
    kinds: frozenset[NotificationType] = frozenset()
    ids: frozenset[int] = frozenset()
    refs: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()

    def takes(self, note: Note) -> bool:
        """Whether a note fits."""
        return (
            note.kind.entity in self.entities
            and (not self.kinds or note.kind in self.kinds)
            and (not self.ids or note.entity_id in self.ids)
            and (not self.statuses or note.status in self.statuses)
            and (not self.refs or not self.refs.isdisjoint(note.refs))
        )


class Batch:
    """Notes that came together, to be looked up by what filters name."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self._notes = notes

    def fitting(self, filters: Iterable[Filter]) -> list[Note]:
        """The notes that fit any of some filters, in their order."""
        places = {place for one in filters for place in self._places(one) if one.takes(self._notes[place])}
        return [self._notes[place] for place in sorted(places)]

    def _places(self, wanted: Filter) -> Iterator[int]:
        """Where what fits may stand: hundreds of readers with filters of their own do not all look at everything."""
        if wanted.ids:
            for number in wanted.ids & self._by_id.keys():
                yield from self._by_id[number]
        elif wanted.refs:
            for ref in wanted.refs & self._by_ref.keys():
                yield from self._by_ref[ref]
        else:
            yield from range(len(self._notes))

    @cached_property
    def _by_id(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for place, note in enumerate(self._notes):
            found.setdefault(note.entity_id, []).append(place)
        return found

    @cached_property
    def _by_ref(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, note in enumerate(self._notes):
            for ref in note.refs:
                found.setdefault(ref, []).append(place)
        return found

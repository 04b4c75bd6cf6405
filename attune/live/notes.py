"""What happened, as it is kept for those who look; and which of it somebody wants."""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from attune.bus.messages import Entity, Notification, NotificationType

T = TypeVar("T", bound=Hashable)

_REFS = ("action_ref", "rule_ref", "trigger_ref", "ref")


class Note:
    """A notification with its number. Its JSON is made once, when the first reader wants it."""

    __slots__ = ("_json", "notification", "number")

    def __init__(self, number: int, notification: Notification) -> None:
        self.number = number
        self.notification = notification
        self._json: bytes | None = None

    @property
    def kind(self) -> NotificationType:
        """What it says."""
        return self.notification.kind

    @property
    def refs(self) -> list[str]:
        """What it has to do with."""
        payload = self.notification.payload
        return [str(payload[name]) for name in _REFS if payload.get(name) is not None]

    @property
    def json(self) -> bytes:
        """The payload, as JSON."""
        if self._json is None:
            kind, number, _, payload = self.notification
            shown = {"entity_type": kind.entity, "entity_id": number, "id": number, **payload}
            self._json = orjson.dumps(shown, option=orjson.OPT_UTC_Z)
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
            and (not self.ids or note.notification.entity_id in self.ids)
            and (not self.statuses or note.notification.payload.get("status") in self.statuses)
            and (not self.refs or not self.refs.isdisjoint(note.refs))
        )


class Index(Generic[T]):
    """Who wants what. Hundreds with filters of their own do not all look at every note."""

    def __init__(self) -> None:
        self._by_id: dict[int, list[tuple[Filter, T]]] = {}
        self._by_ref: dict[str, list[tuple[Filter, T]]] = {}
        self._others: list[tuple[Filter, T]] = []

    def add(self, wanted: Filter, who: T) -> None:
        """Let somebody want what fits a filter."""
        for found, key in self._places(wanted):
            found.setdefault(key, []).append((wanted, who))
        if not (wanted.ids or wanted.refs):
            self._others.append((wanted, who))

    def remove(self, wanted: Filter, who: T) -> None:
        """Let somebody want that no more."""
        for found, key in self._places(wanted):
            found[key].remove((wanted, who))
            if not found[key]:
                del found[key]
        if not (wanted.ids or wanted.refs):
            self._others.remove((wanted, who))

    def fitting(self, notes: Iterable[Note]) -> dict[T, list[Note]]:
        """The notes that each wants, in their order."""
        fitting: dict[T, list[Note]] = {}
        for note in notes:
            for wanted, who in self._candidates(note):
                if wanted.takes(note):
                    wants = fitting.setdefault(who, [])
                    # Two of its filters may take it.
                    if not wants or wants[-1] is not note:
                        wants.append(note)
        return fitting

    def _candidates(self, note: Note) -> Iterator[tuple[Filter, T]]:
        yield from self._others
        yield from self._by_id.get(note.notification.entity_id, ())
        if self._by_ref:
            for ref in note.refs:
                yield from self._by_ref.get(ref, ())

    def _places(self, wanted: Filter) -> Iterator[tuple[dict[Any, list[tuple[Filter, T]]], int | str]]:
        if wanted.ids:
            yield from ((self._by_id, number) for number in wanted.ids)
        else:
            yield from ((self._by_ref, ref) for ref in wanted.refs)

"""What happened, as it is kept for those who look; and which of it somebody wants."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeAlias, TypeVar

import orjson

from attune.bus.messages import Entity, Notification, NotificationType

T = TypeVar("T", bound=Hashable)

_Wants: TypeAlias = list[tuple["Filter", T]]

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
    """Who wants what, to be found by what a note says: hundreds with filters of their own do not all look at it."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Wants[T]] = {}
        self._by_ref: dict[object, _Wants[T]] = {}
        self._others: _Wants[T] = []

    def add(self, wanted: Filter, who: T) -> None:
        """Let somebody want what fits a filter."""
        if wanted.ids:
            _put(self._by_id, wanted.ids, (replace(wanted, ids=frozenset()), who))
        elif wanted.refs:
            _put(self._by_ref, wanted.refs, (replace(wanted, refs=frozenset()), who))
        else:
            self._others.append((wanted, who))

    def remove(self, wanted: Filter, who: T) -> None:
        """Let somebody want that no more."""
        if wanted.ids:
            _take(self._by_id, wanted.ids, (replace(wanted, ids=frozenset()), who))
        elif wanted.refs:
            _take(self._by_ref, wanted.refs, (replace(wanted, refs=frozenset()), who))
        else:
            self._others.remove((wanted, who))

    def fitting(self, notes: Iterable[Note]) -> dict[T, list[Note]]:
        """The notes that each wants, in their order."""
        fitting: dict[T, list[Note]] = {}
        for note in notes:
            for rest, who in self._candidates(note.notification):
                if rest.takes(note):
                    wants = fitting.setdefault(who, [])
                    # Two of its filters may take it.
                    if not wants or wants[-1] is not note:
                        wants.append(note)
        return fitting

    def _candidates(self, notification: Notification) -> _Wants[T]:
        """Those whose filters name the id or a ref of it, with the rest of their filters, and those who name none."""
        found = [*self._others, *self._by_id.get(notification.entity_id, ())]
        if self._by_ref:
            payload = notification.payload
            for name in _REFS:
                ref = payload.get(name)
                if ref in self._by_ref:
                    found += self._by_ref[ref]
        return found


def _put(places: dict[Any, _Wants[T]], keys: Iterable[object], want: tuple[Filter, T]) -> None:
    for key in keys:
        places.setdefault(key, []).append(want)


def _take(places: dict[Any, _Wants[T]], keys: Iterable[object], want: tuple[Filter, T]) -> None:
    for key in keys:
        places[key].remove(want)
        if not places[key]:
            del places[key]

"""Passes on what happens: to every reader what it wants, made once for all who want the same.

While nobody looks, nothing is told, and nothing is kept. Who was away for a while finds what it missed in the ring, or
is told that it is not there any more and reads again what it shows.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

import anyio
from prometheus_client.metrics_core import Metric

from attune.base.errors import Unavailable
from attune.bus.broadcasts import Heard
from attune.bus.bus import Bus
from attune.bus.messages import Entity, NotificationCreated
from attune.live.forms import Form
from attune.live.notes import Filter, Index, Note
from attune.telemetry import families

KEPT = 10_000
"""Notifications in the ring, and such that wait for one reader."""
KEPT_FOR = 120
"""Seconds for which notifications are kept when the last reader has gone."""
MOST_READERS = 300
PULSE = 10
"""Seconds after which a reader hears of us in any case, and has to have taken something of what it was sent."""
_PACE = 0.03
"""Seconds for which notifications are gathered once some were passed on: readers are woken once for many."""


class Kind(StrEnum):
    """How somebody reads."""

    SSE = "sse"
    WEBSOCKET = "websocket"


class End(StrEnum):
    """Why reading ends."""

    SLOW = "You read more slowly than things happen. Come back with Last-Event-ID, or with a narrower filter."
    STOPPING = "Attune is stopping."


class Part:
    """Notes for all readers who want the same, made into bytes when the first of them takes it."""

    def __init__(self, boot: str, form: Form, notes: Sequence[Note]) -> None:
        self.size = len(notes)
        self._boot = boot
        self._form = form
        self._notes = notes
        self._made: list[bytes] | None = None

    def bytes(self) -> list[bytes]:
        """What is sent."""
        if self._made is None:
            self._made = self._form(self._boot, self._notes)
            self._notes = ()
        return self._made


@dataclass(slots=True)
class Taken:
    """What a reader has to send. `reset` says why it has to read again what it shows, before the rest. `pulse`: it is
    to say that it is there. Afterwards it stands at `position`."""

    parts: list[bytes]
    reset: str | None
    pulse: bool
    end: End | None
    position: str


@dataclass(slots=True, eq=False)
class Reader:
    """Somebody who looks. What waits for it is bounded: who does not keep up is cut."""

    kind: Kind
    form: Form
    filters: frozenset[Filter]
    write: Callable[[bytes], bool] | None = None
    """Sends to a client that is not behind, False when it is: who waits for something need not be woken to send it."""
    is_idle: bool = False
    """Nothing is on its way to it that something else could overtake."""
    waiting: deque[Part] = field(default_factory=deque)
    size: int = 0
    reset: str | None = None
    pulse: bool = False
    end: End | None = None
    # Not anyio's, which costs ten times as much: there are thousands of wake-ups a second.
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    stuck: anyio.Event = field(default_factory=anyio.Event)
    """Set when it cannot even be told why it is cut: its connection takes nothing any more."""

    @property
    def entities(self) -> frozenset[Entity]:
        """What it looks at."""
        return frozenset(entity for wanted in self.filters for entity in wanted.entities)

    def give(self, part: Part) -> bool:
        """Send a part, or let it wait for the reader; False when too much does, and ends it."""
        if self.write and self.is_idle and not self.changed.is_set() and self.write(b"".join(part.bytes())):
            return True
        self.size += part.size
        if self.size > KEPT:
            self.finish(End.SLOW)
            return False
        self.waiting.append(part)
        self.changed.set()
        return True

    def finish(self, end: End) -> None:
        """Let it end; what waits for it is dropped."""
        self.end = self.end or end
        self.waiting.clear()
        self.changed.set()

    def start_anew(self, why: str) -> None:
        """Let it read again what it shows; what waits for it is older."""
        self.reset = why
        self.waiting.clear()
        self.size = 0
        self.changed.set()


@dataclass(slots=True, eq=False)
class _Group:
    """Readers who want the same."""

    form: Form
    filters: frozenset[Filter]
    readers: list[Reader] = field(default_factory=list)


class LiveViews:
    """The ring of what happened last, and those who look. `boot` tells this run from others."""

    def __init__(self, bus: Bus, boot: str) -> None:
        self._bus = bus
        self._boot = boot
        self._ring: deque[Note] = deque(maxlen=KEPT)
        self._last = 0
        self._groups: dict[tuple[Form, frozenset[Filter]], _Group] = {}
        self._index: Index[_Group] = Index()
        self._slots: dict[Reader, int] = {}
        self._numbers = count()
        # The place in the count from which on all is told of an entity, and when the last went who looked at it.
        self._since: dict[Entity, int] = {}
        self._left: dict[Entity, float] = {}
        self._stopping = False
        self._passed_on = 0
        self._cut = 0

    @property
    def position(self) -> str:
        """Where one stands who has everything."""
        return f"{self._boot}-{self._last}"

    async def hear(self, heard: Heard) -> None:
        """Pass on what the bus tells."""
        if heard.missed:
            self._miss(frozenset(self._since))
        notes: list[Note] = []
        for message in heard.messages:
            assert isinstance(message, NotificationCreated)
            self._miss(message.missed)
            notes += [Note(number, one) for number, one in enumerate(message.notifications, self._last + 1)]
            self._last += len(message.notifications)
        self._ring.extend(notes)
        for group, fitting in self._index.fitting(notes).items():
            self._give(group.readers, Part(self._boot, group.form, fitting))
        await self._bus.clock.sleep(_PACE)

    def check(self) -> None:
        """Raise Unavailable when nobody else can read now."""
        if self._stopping:
            raise Unavailable(End.STOPPING)
        if len(self._slots) >= MOST_READERS:
            raise Unavailable(f"{MOST_READERS} read already. Try again later, or ask for the rows.", retry_after=PULSE)

    @contextmanager
    def reading(self, reader: Reader, last: str | None = None) -> Iterator[None]:
        """Give a reader what it wants, for the block: what came after the position `last`, if that is kept."""
        kept = self._after(last, reader.entities)
        if kept is None:
            reader.start_anew("This is where it begins." if last is None else f"What came after {last} is not kept.")
        elif fitting := [note for note in kept if any(one.takes(note) for one in reader.filters)]:
            self._give([reader], Part(self._boot, reader.form, fitting))
        self._slots[reader] = next(self._numbers) % PULSE
        self._join(reader)
        if self._stopping:
            reader.finish(End.STOPPING)
        try:
            yield
        finally:
            self._leave(reader)
            del self._slots[reader]

    def want(self, reader: Reader, filters: frozenset[Filter]) -> None:
        """Let a reader have something else from now on."""
        self._leave(reader)
        reader.filters = filters
        self._join(reader)

    async def take(self, reader: Reader) -> Taken:
        """What waits for a reader, as soon as something does."""
        reader.is_idle = True
        await reader.changed.wait()
        reader.is_idle = False
        reader.changed.clear()
        parts = [piece for part in reader.waiting for piece in part.bytes()]
        taken = Taken(parts, reader.reset, reader.pulse, reader.end, self.position)
        reader.waiting.clear()
        reader.size, reader.reset, reader.pulse = 0, None, False
        return taken

    def close(self) -> None:
        """Let all readers end, and take no others."""
        self._stopping = True
        for reader in self._slots:
            reader.finish(End.STOPPING)

    async def run(self) -> None:
        """Look after the readers until cancelled."""
        for tick in count():
            await self._bus.clock.sleep(1)
            for reader, slot in self._slots.items():
                if slot == tick % PULSE:
                    self._beat(reader)
            self.look_away()

    def look_away(self, after: float = KEPT_FOR) -> None:
        """Have nothing told any more of what nobody has looked at for so many seconds."""
        now = self._bus.clock.monotonic()
        looked_at = {entity for reader in self._slots for entity in reader.entities}
        self._left = {entity: self._left.get(entity, now) for entity in self._since.keys() - looked_at}
        for entity, left in self._left.items():
            if now - left >= after:
                del self._since[entity]
        self._bus.watched = frozenset(self._since)
        if not self._since:
            self._ring.clear()

    def collect(self) -> list[Metric]:
        """The metrics."""
        kinds = [reader.kind for reader in self._slots]
        return [
            families.STREAM_READERS.of({(kind,): kinds.count(kind) for kind in Kind}),
            families.STREAM_NOTIFICATIONS.of({(): self._passed_on}),
            families.STREAM_CUT.of({(): self._cut}),
        ]

    def _after(self, last: str | None, entities: frozenset[Entity]) -> list[Note] | None:
        """What came after a position; None when that is not known of one of these entities."""
        boot, _, number = (last or "").rpartition("-")
        if boot != self._boot or not number.isdecimal() or not entities <= self._since.keys():
            return None
        at = int(number)
        first = self._ring[0].number - 1 if len(self._ring) == KEPT else 0
        if not max([first, *(self._since[entity] for entity in entities)]) <= at <= self._last:
            return None
        return [note for note in self._ring if note.number > at]

    def _give(self, readers: Sequence[Reader], part: Part) -> None:
        slow = [reader for reader in readers if not reader.give(part)]
        self._passed_on += part.size * (len(readers) - len(slow))
        self._cut += len(slow)
        for reader in slow:
            self._leave(reader)

    def _beat(self, reader: Reader) -> None:
        if reader.pulse:
            # It has not taken the one before: its connection is full since then.
            if reader.end is not End.SLOW:
                self._cut += 1
            reader.stuck.set()
        reader.pulse = True
        reader.changed.set()

    def _miss(self, entities: frozenset[Entity]) -> None:
        """Something may have happened that was not told of: who looks at such has to read again."""
        self._last += bool(entities)
        for entity in entities & self._since.keys():
            self._since[entity] = self._last
        for reader in self._slots:
            if reader.entities & entities:
                reader.start_anew("Something happened that was not kept.")

    def _look(self, entities: frozenset[Entity]) -> None:
        """Have all told of these entities from now on."""
        if entities <= self._since.keys():
            return
        # Whoever stands here already was told nothing of the new ones.
        self._last += 1
        for entity in entities:
            self._since.setdefault(entity, self._last)
        self._bus.watched = frozenset(self._since)

    def _join(self, reader: Reader) -> None:
        self._look(reader.entities)
        group = self._groups.get((reader.form, reader.filters))
        if group is None:
            group = self._groups[reader.form, reader.filters] = _Group(reader.form, reader.filters)
            for wanted in group.filters:
                self._index.add(wanted, group)
        group.readers.append(reader)

    def _leave(self, reader: Reader) -> None:
        group = self._groups.get((reader.form, reader.filters))
        if group is None or reader not in group.readers:
            return
        group.readers.remove(reader)
        if not group.readers:
            del self._groups[reader.form, reader.filters]
            for wanted in group.filters:
                self._index.remove(wanted, group)

"""All definitions, in memory, as of a version: what consumers look things up in."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import anyio

from attune.base.schema import Checker
from attune.catalog import queries
from attune.catalog.model import Action, Definition, Pack, Rule, Trigger
from attune.catalog.queries import Kind
from attune.database.pool import Connection

D = TypeVar("D", bound=Definition)
V = TypeVar("V")


class Table(Generic[D]):
    """The definitions of one kind, by id and by ref."""

    def __init__(self, kind: type[D]) -> None:
        self._kind = kind
        self.by_id: dict[int, D] = {}
        self.by_ref: dict[str, D] = {}

    def clear(self) -> None:
        self.by_id.clear()
        self.by_ref.clear()

    def put(self, entity: int, definition: Definition | None) -> tuple[D | None, D | None]:
        """Replace, add or (None) remove a definition; what was there before and what is there now."""
        before = self.by_id.pop(entity, None)
        if before is not None:
            self.by_ref.pop(before.ref, None)
        if definition is None:
            return before, None
        assert isinstance(definition, self._kind)
        self.by_id[entity] = self.by_ref[definition.ref] = definition
        return before, definition


class Derived(Generic[D, V]):
    """What is made of definitions, made again only when they change."""

    def __init__(self, make: Callable[[D], V]) -> None:
        self._make = make
        self._known: dict[int, tuple[D, V]] = {}

    def of(self, definition: D) -> V:
        """What is made of this definition."""
        known = self._known.get(definition.id)
        if known is not None and known[0] is definition:
            return known[1]
        made = self._make(definition)
        self._known[definition.id] = (definition, made)
        return made


class Definitions:
    """Follows the definitions in the database. A consumer reads the version in its own transaction and calls `follow`:
    afterwards everything here is at least as new as what that transaction sees."""

    def __init__(self) -> None:
        self.version = -1
        self.packs = Table(Pack)
        self.triggers = Table(Trigger)
        self.actions = Table(Action)
        self.rules = Table(Rule)
        self.parameters: Derived[Action, Checker] = Derived(lambda action: Checker(action.param_schema))
        """What checks the parameters of an action."""
        self._rules_of: dict[str, dict[int, Rule]] = {}
        self._following = anyio.Lock()

    def rules_of(self, trigger_ref: str) -> Mapping[int, Rule]:
        """The rules of a trigger, enabled or not, by id."""
        return self._rules_of.get(trigger_ref, {})

    async def follow(self, connection: Connection, version: int) -> None:
        """Catch up with `version`, in as many statements for a thousand changes as for one."""
        if version <= self.version:
            return
        async with self._following:
            if self.version < 0:
                await self._load(connection)
            elif version > self.version:
                await self._catch_up(connection, version)

    async def _load(self, connection: Connection) -> None:
        kinds: tuple[Kind, ...] = ("pack", "trigger", "action", "rule")
        version = -1
        # Somebody may change a definition between these statements: then they did not see one state.
        while version != (version := await queries.current_version(connection)):
            for table in (self.packs, self.triggers, self.actions, self.rules):
                table.clear()
            self._rules_of.clear()
            for kind in kinds:
                for definition in await queries.definitions(connection, kind):
                    self._put(kind, definition.id, definition)
        self.version = version

    async def _catch_up(self, connection: Connection, newest: int) -> None:
        # A version may have come without a change: a pack was read again, and says the same.
        for version, kind, entity, definition in await queries.changes_since(connection, self.version):
            self._put(kind, entity, definition)
            newest = max(newest, version)
        self.version = newest

    def _put(self, kind: Kind, entity: int, definition: Definition | None) -> None:
        match kind:
            case "pack":
                self.packs.put(entity, definition)
            case "trigger":
                self.triggers.put(entity, definition)
            case "action":
                self.actions.put(entity, definition)
            case "rule":
                before, after = self.rules.put(entity, definition)
                if before is not None:
                    self._rules_of[before.trigger_ref].pop(entity, None)
                if after is not None:
                    self._rules_of.setdefault(after.trigger_ref, {})[entity] = after

"""Bringing the packs of folders into the database: each wholly, in one transaction, or not at all."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import anyio.to_thread
import structlog

from attune.base.errors import BadInput, Conflict, Problem
from attune.bus.bus import Bus
from attune.bus.transaction import Transaction
from attune.catalog import files, queries
from attune.catalog.files import PackFolder
from attune.catalog.formats import ActionFile, RuleFile, TriggerFile
from attune.catalog.queries import Kind, RuleSpec
from attune.catalog.rules import Rules, Saved
from attune.catalog.sources import checksum_of, read_sources
from attune.catalog.yamls import FileProblem, YamlError

log = structlog.get_logger()

Component = TypeVar("Component", TriggerFile, ActionFile)


class Installer:
    """Reads pack folders and makes the database say what they say."""

    def __init__(self, bus: Bus, rules: Rules) -> None:
        self._bus = bus
        self._rules = rules
        self._folders: dict[str, Path] = {}

    @property
    def folders(self) -> Mapping[str, Path]:
        """The folder of each pack that was read, by ref."""
        return self._folders

    async def install(self, directory: Path) -> None:
        """Install or update the pack of a folder. Raises BadInput with all that is wrong with it."""
        # In a thread: YAML takes as long as it likes, and the loop has others to serve.
        sources = await anyio.to_thread.run_sync(read_sources, directory)
        async with self._bus.database.acquire() as connection:
            ref = await queries.installed(connection, str(directory), checksum_of(sources))
        if ref is not None:
            self._claim(ref, directory)
            return
        folder = await anyio.to_thread.run_sync(files.read_pack, directory, sources)
        self._claim(folder.pack.ref, directory)
        async with self._bus.transaction() as transaction:
            version = await queries.raise_version(transaction.connection)
            changed = await _Installation(transaction, version, folder, self._rules).run()
        if changed:
            log.info("pack installed", pack=folder.pack.ref, version=folder.pack.version, folder=str(directory))

    async def remove(self, ref: str) -> None:
        """Remove a pack with all that its files brought. Rules that people made in it stay, and so does what it
        caused."""
        self._folders.pop(ref, None)
        async with self._bus.transaction() as transaction:
            version = await queries.raise_version(transaction.connection)
            await _Components(transaction, version, ref, self._rules).remove_all()
            pack_id = await queries.delete_pack(transaction.connection, ref)
            if pack_id is not None:
                await queries.record_deletion(transaction.connection, version, "pack", pack_id, ref, transaction.now)
        log.info("pack removed", pack=ref)

    def keep(self, directories: Collection[Path]) -> None:
        """Let other folders be the packs of those that are none of these any more."""
        self._folders = {ref: directory for ref, directory in self._folders.items() if directory in directories}

    def _claim(self, ref: str, directory: Path) -> None:
        """Two folders of one pack would replace each other at every start."""
        first = self._folders.get(ref, directory)
        if first != directory:
            what = f"the pack {ref!r} is that of {first} already"
            raise YamlError(
                f"The pack in {directory} is not loaded.", [FileProblem.at(directory / "pack.yaml", 1, "ref", what)]
            )
        self._folders = {known: path for known, path in self._folders.items() if path != directory} | {ref: directory}


class _Components:
    """What a pack has in the database, in one transaction."""

    def __init__(self, transaction: Transaction, version: int, pack_ref: str, rules: Rules) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._version = version
        self._pack_ref = pack_ref
        self._rules = rules
        self.removed = False

    async def remove_all(self) -> None:
        await self.remove_rules(set())
        await self.remove("trigger", set())
        await self.remove("action", set())

    async def remove(self, kind: Kind, kept: set[str]) -> None:
        """Remove the triggers or actions that are not kept; rules that name them stay, and fire nothing."""
        for ref, entity in (await queries.components_of(self._connection, kind, self._pack_ref)).items():
            if ref not in kept:
                await self.record_rules(await queries.delete_component(self._connection, kind, entity))
                await queries.record_deletion(self._connection, self._version, kind, entity, ref, self._transaction.now)
                self.removed = True

    async def remove_rules(self, kept: set[str]) -> None:
        """Remove the rules that came with the pack and are not kept."""
        for ref in (await queries.components_of(self._connection, "rule", self._pack_ref)).keys() - kept:
            rule = await queries.lock_rule(self._connection, ref)
            assert rule is not None
            await self._rules.delete_in(self._transaction, self._version, rule)
            self.removed = True

    async def record_rules(self, changed: Sequence[int]) -> None:
        for rule in changed:
            await queries.record_revision(self._connection, self._version, "rule", rule, self._transaction.now)


class _Installation:
    """One pack, in one transaction. What is as its file says already is not written."""

    def __init__(self, transaction: Transaction, version: int, folder: PackFolder, rules: Rules) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._version = version
        self._folder = folder
        self._rules = rules
        self._known = _Components(transaction, version, folder.pack.ref, rules)
        self._changed = False

    async def run(self) -> bool:
        """Whether anything is not as it was."""
        pack_id, is_new = await queries.upsert_pack(self._connection, self._folder, self._transaction.now)
        if is_new:
            await self._record("pack", pack_id)
        await self._upsert("trigger", self._folder.triggers, pack_id, queries.upsert_trigger)
        await self._upsert("action", self._folder.actions, pack_id, queries.upsert_action)
        await self._known.remove_rules({file.content.ref for file in self._folder.rules})
        # Before the rules are written: none of them may name what goes.
        await self._known.remove("trigger", {trigger.ref for trigger in self._folder.triggers})
        await self._known.remove("action", {action.ref for action in self._folder.actions})
        await self._known.record_rules(await queries.relink_rules(self._connection))
        await self._write_rules()
        await queries.keep_files(self._connection, pack_id, self._folder.sources, self._folder.described)
        return self._changed or self._known.removed

    async def _record(self, kind: Kind, entity: int) -> None:
        await queries.record_revision(self._connection, self._version, kind, entity, self._transaction.now)
        self._changed = True

    async def _upsert(
        self,
        kind: Kind,
        components: Sequence[Component],
        pack_id: int,
        upsert: Callable[..., Awaitable[int | None]],
    ) -> None:
        now = self._transaction.now
        for component in components:
            entity = await upsert(self._connection, component, pack_id, self._folder.pack.ref, now)
            if entity is not None:
                await self._record(kind, entity)

    async def _write_rules(self) -> None:
        problems: list[Problem] = []
        said = await queries.enabled_in_files(self._connection, self._folder.pack.ref)
        for file in self._folder.rules:
            try:
                saved = await self._write_rule(file.content, said)
            except BadInput as error:
                problems.extend(file.problem(problem.where, problem.what) for problem in error.problems)
            except Conflict as error:
                hint = f"to let this file take its place: attune rule delete {file.content.ref}"
                problems.append(file.problem("/ref", f"{error.message} A person made it; {hint}"))
            else:
                for warning in saved.warnings:
                    log.warning(warning, rule=saved.rule.ref)
        if problems:
            raise YamlError(f"The pack in {self._folder.directory} is not loaded.", problems)

    async def _write_rule(self, file: RuleFile, said: Mapping[str, bool | None]) -> Saved:
        await self._check_refs(file)
        before = await queries.lock_rule(self._connection, file.ref) if file.ref in said else None
        if before is None:
            spec = spec_of_file(file, enabled=file.enabled)
            saved = await self._rules.create_in(self._transaction, self._version, spec, owner=None, is_adhoc=False)
        else:
            # Whoever switched the rule on or off meant it, until the file says something else than before.
            is_new = said[file.ref] is not None and said[file.ref] != file.enabled
            spec = spec_of_file(file, enabled=file.enabled if is_new else before.enabled)
            saved = await self._rules.update_in(self._transaction, self._version, before, spec)
        if said.get(file.ref) != file.enabled:
            await queries.note_enabled_in_file(self._connection, saved.rule.id, file.enabled)
        self._changed = self._changed or saved.rule is not before
        return saved

    async def _check_refs(self, file: RuleFile) -> None:
        named: list[tuple[Kind, str]] = [("trigger", file.trigger_ref), ("action", file.action_ref)]
        problems = []
        for kind, ref in named:
            if await queries.definition(self._connection, kind, ref) is None:
                close = close_to(ref, await queries.all_refs(self._connection, kind))
                hint = f"; did you mean {close!r}?" if close else ""
                problems.append(Problem(f"/{kind}_ref", f"there is no {kind} {ref}{hint}"))
        if problems:
            raise BadInput(f"The rule {file.ref} names what is not there.", problems)


def close_to(ref: str, known: Sequence[str]) -> str | None:
    """The ref that was probably meant: of the same name in another pack, or one that is spelt alike."""
    names = {one.rpartition(".")[2]: one for one in known}
    name = ref.rpartition(".")[2]
    if name in names:
        return names[name]
    close = get_close_matches(ref, known, n=1) or [names[one] for one in get_close_matches(name, names, n=1)]
    return close[0] if close else None


def spec_of_file(file: RuleFile, *, enabled: bool) -> RuleSpec:
    """The rule that a file describes."""
    return RuleSpec(
        ref=file.ref,
        pack_ref=file.ref.partition(".")[0],
        label=file.label,
        description=file.description,
        action_ref=file.action_ref,
        trigger_ref=file.trigger_ref,
        conditions=file.conditions,
        action_params=file.action_params,
        trigger_params=file.trigger_params,
        enabled=enabled,
        overlap=file.overlap.value,
    )

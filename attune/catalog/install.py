"""Bringing the packs of folders into the database: each wholly, in one transaction, or not at all."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from attune.base.errors import BadInput, Conflict, Problem
from attune.bus.bus import Bus
from attune.bus.transaction import Transaction
from attune.catalog import files, queries
from attune.catalog.files import ActionFile, PackFolder, RuleFile, TriggerFile
from attune.catalog.queries import Kind, RuleSpec
from attune.catalog.rules import Rules, Saved
from attune.catalog.yamls import YamlError

log = structlog.get_logger()

Component = TypeVar("Component", TriggerFile, ActionFile)


class Installer:
    """Reads pack folders and makes the database say what they say."""

    def __init__(self, bus: Bus, rules: Rules) -> None:
        self._bus = bus
        self._rules = rules
        self._folders: dict[str, Path] = {}

    async def install(self, directory: Path) -> None:
        """Install or update the pack of a folder. Raises BadInput with all that is wrong with it."""
        async with self._bus.database.acquire() as connection:
            ref = await queries.installed(connection, str(directory), files.checksum(directory))
        if ref is not None:
            self._claim(ref, directory)
            return
        folder = files.read_pack(directory)
        self._claim(folder.pack.ref, directory)
        async with self._bus.transaction() as transaction:
            version = await queries.raise_version(transaction.connection)
            await _Installation(transaction, version, folder, self._rules).run()
        log.info("pack installed", pack=folder.pack.ref, version=folder.pack.version, folder=str(directory))

    def _claim(self, ref: str, directory: Path) -> None:
        """Two folders of one pack would replace each other at every start."""
        first = self._folders.setdefault(ref, directory)
        if first != directory:
            problem = Problem(str(directory / "pack.yaml"), f"ref: the pack {ref!r} is that of {first} already")
            raise YamlError(f"The pack in {directory} is not loaded.", [problem])


class _Installation:
    """One pack, in one transaction."""

    def __init__(self, transaction: Transaction, version: int, folder: PackFolder, rules: Rules) -> None:
        self._transaction = transaction
        self._connection = transaction.connection
        self._version = version
        self._folder = folder
        self._rules = rules

    async def run(self) -> None:
        now = self._transaction.now
        pack_id = await queries.upsert_pack(self._connection, self._folder, now)
        await queries.record_revision(self._connection, self._version, "pack", pack_id, now)
        await self._upsert("trigger", self._folder.triggers, pack_id, queries.upsert_trigger)
        await self._upsert("action", self._folder.actions, pack_id, queries.upsert_action)
        installed = await self._remove_rules()
        # Before the rules are written: none of them may name what goes.
        await self._remove("trigger", {trigger.ref for trigger in self._folder.triggers})
        await self._remove("action", {action.ref for action in self._folder.actions})
        await self._record_rules(await queries.relink_rules(self._connection))
        await self._write_rules(installed)

    async def _upsert(
        self,
        kind: Kind,
        components: Sequence[Component],
        pack_id: int,
        upsert: Callable[..., Awaitable[int]],
    ) -> None:
        now = self._transaction.now
        for component in components:
            entity = await upsert(self._connection, component, pack_id, self._folder.pack.ref, now)
            await queries.record_revision(self._connection, self._version, kind, entity, now)

    async def _remove(self, kind: Kind, kept: set[str]) -> None:
        for ref, entity in (await queries.components_of(self._connection, kind, self._folder.pack.ref)).items():
            if ref not in kept:
                await self._record_rules(await queries.delete_component(self._connection, kind, entity))
                await queries.record_deletion(self._connection, self._version, kind, entity, ref, self._transaction.now)

    async def _record_rules(self, changed: Sequence[int]) -> None:
        for rule in changed:
            await queries.record_revision(self._connection, self._version, "rule", rule, self._transaction.now)

    async def _remove_rules(self) -> set[str]:
        """Remove the rules that the pack no longer has; the refs of those that stay."""
        installed = (await queries.components_of(self._connection, "rule", self._folder.pack.ref)).keys()
        kept = installed & {file.content.ref for file in self._folder.rules}
        for ref in installed - kept:
            rule = await queries.lock_rule(self._connection, ref)
            assert rule is not None
            await self._rules.delete_in(self._transaction, self._version, rule)
        return kept

    async def _write_rules(self, installed: set[str]) -> None:
        problems: list[Problem] = []
        for file in self._folder.rules:
            try:
                saved = await self._write_rule(file.content, installed)
            except BadInput as error:
                problems.extend(file.problem(problem.where, problem.what) for problem in error.problems)
            except Conflict as error:
                problems.append(file.problem("/ref", error.message))
            else:
                for warning in saved.warnings:
                    log.warning(warning, rule=saved.rule.ref)
        if problems:
            raise YamlError(f"The pack in {self._folder.directory} is not loaded.", problems)

    async def _write_rule(self, file: RuleFile, installed: set[str]) -> Saved:
        await self._check_refs(file)
        pack_ref = self._folder.pack.ref
        before = await queries.lock_rule(self._connection, file.ref) if file.ref in installed else None
        if before is None:
            spec = _spec(file, pack_ref, enabled=file.enabled)
            return await self._rules.create_in(self._transaction, self._version, spec, owner=None, is_adhoc=False)
        # Whoever switched the rule on or off meant it: the file decides only the first time.
        spec = _spec(file, pack_ref, enabled=before.enabled)
        return await self._rules.update_in(self._transaction, self._version, before, spec)

    async def _check_refs(self, file: RuleFile) -> None:
        named: list[tuple[Kind, str]] = [("trigger", file.trigger_ref), ("action", file.action_ref)]
        problems = [
            Problem(f"/{kind}_ref", f"there is no {kind} {ref}")
            for kind, ref in named
            if await queries.definition(self._connection, kind, ref) is None
        ]
        if problems:
            raise BadInput(f"The rule {file.ref} names what is not there.", problems)


def _spec(file: RuleFile, pack_ref: str, *, enabled: bool) -> RuleSpec:
    return RuleSpec(
        ref=file.ref,
        pack_ref=pack_ref,
        label=file.label,
        description=file.description,
        action_ref=file.action_ref,
        trigger_ref=file.trigger_ref,
        conditions=file.conditions,
        action_params=file.action_params,
        trigger_params=file.trigger_params,
        enabled=enabled,
    )

"""Making, changing and deleting rules: checked as a whole, in one transaction with everything that follows from it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from attune.base import refs
from attune.base.errors import BadInput, Conflict, NotFound, Problem
from attune.base.expressions import has_template
from attune.base.expressions import problems as template_problems
from attune.base.schema import validate, with_defaults
from attune.bus.bus import Bus
from attune.bus.messages import Cause, Change, NotificationType, RuleChanged, Shown
from attune.bus.transaction import Transaction
from attune.catalog import queries
from attune.catalog.model import Action, Rule, Trigger
from attune.catalog.queries import Kind, RuleSpec
from attune.database.ids import uuid7
from attune.database.pool import Connection


class Extension(Protocol):
    """A package above that has a say in rules."""

    def problems(self, rule: RuleSpec) -> Iterable[Problem]:
        """What is wrong with a rule, as JSON Pointers into it. Its parameters fit their schemas already."""
        ...

    async def changed(self, transaction: Transaction, /, before: Rule | None, after: Rule | None) -> Sequence[str]:
        """Follow a change in its transaction, and return what the one who made it should be warned of."""
        ...


@dataclass(frozen=True, slots=True)
class Saved:
    """A rule after its change, and what its author should know."""

    rule: Rule
    warnings: tuple[str, ...]


class Rules:
    """The one place that writes rules."""

    def __init__(self, bus: Bus, extensions: Sequence[Extension]) -> None:
        self._bus = bus
        self._extensions = extensions

    async def create(self, spec: RuleSpec, owner: int | None) -> Saved:
        """Make a rule. Raises NotFound for an unknown pack, trigger or action, Conflict for a taken ref, BadInput
        otherwise."""
        async with self._bus.transaction() as transaction:
            version = await queries.raise_version(transaction.connection)
            return await self.create_in(transaction, version, spec, owner=owner, is_adhoc=True)

    async def update(self, ref: str, changes: dict[str, Any]) -> Saved:
        """Change some fields of a rule. A rule that came with a pack can be enabled and disabled, and no more."""
        async with self._bus.transaction() as transaction:
            version = await queries.raise_version(transaction.connection)
            before = await self._locked(transaction, ref)
            if not before.is_adhoc and changes.keys() - {"enabled"}:
                raise await _belongs_to_pack(transaction, before)
            spec = replace(spec_of(before), **changes)
            if changes == {"enabled": False}:
                # However broken it has become meanwhile: whoever wants it to be quiet gets that.
                return await self._write(transaction, version, before, spec)
            return await self.update_in(transaction, version, before, spec)

    async def delete(self, ref: str) -> None:
        """Delete a rule. What it caused stays."""
        async with self._bus.transaction() as transaction:
            version = await queries.raise_version(transaction.connection)
            rule = await self._locked(transaction, ref)
            if not rule.is_adhoc:
                raise await _belongs_to_pack(transaction, rule)
            await self.delete_in(transaction, version, rule)

    async def create_in(
        self, transaction: Transaction, version: int, spec: RuleSpec, *, owner: int | None, is_adhoc: bool
    ) -> Saved:
        """Make a rule in a transaction that has raised the version."""
        await self._check(transaction, spec)
        rule = await queries.insert_rule(
            transaction.connection, spec, is_adhoc=is_adhoc, owner=owner, now=transaction.now
        )
        if rule is None:
            raise Conflict(f"There is a rule {spec.ref} already.")
        await queries.record_revision(transaction.connection, version, "rule", rule.id, transaction.now)
        return Saved(rule, await self._tell(transaction, None, rule, Change.CREATED))

    async def update_in(self, transaction: Transaction, version: int, before: Rule, spec: RuleSpec) -> Saved:
        """Change a rule, whose row is locked, in a transaction that has raised the version."""
        await self._check(transaction, spec)
        if spec == spec_of(before):
            return Saved(before, ())
        return await self._write(transaction, version, before, spec)

    async def _write(self, transaction: Transaction, version: int, before: Rule, spec: RuleSpec) -> Saved:
        rule = await queries.update_rule(transaction.connection, before.id, spec, transaction.now)
        await queries.record_revision(transaction.connection, version, "rule", rule.id, transaction.now)
        return Saved(rule, await self._tell(transaction, before, rule, _kind_of(before, rule)))

    async def delete_in(self, transaction: Transaction, version: int, rule: Rule) -> None:
        """Delete a rule, whose row is locked, in a transaction that has raised the version."""
        await self._tell(transaction, rule, None, Change.DELETED)
        await queries.delete_rule(transaction.connection, rule.id)
        await queries.record_deletion(transaction.connection, version, "rule", rule.id, rule.ref, transaction.now)

    async def _locked(self, transaction: Transaction, ref: str) -> Rule:
        rule = await queries.lock_rule(transaction.connection, ref)
        if rule is None:
            raise NotFound(f"There is no rule {ref}.")
        return rule

    async def _check(self, transaction: Transaction, spec: RuleSpec) -> None:
        connection = transaction.connection
        if await queries.definition(connection, "pack", spec.pack_ref) is None:
            raise NotFound(f"There is no pack {spec.pack_ref}.")
        trigger = await queries.definition(connection, "trigger", spec.trigger_ref)
        if not isinstance(trigger, Trigger):
            raise NotFound(f"There is no trigger {spec.trigger_ref}.")
        action = await queries.definition(connection, "action", spec.action_ref)
        if not isinstance(action, Action):
            raise NotFound(f"There is no action {spec.action_ref}.")
        problems = [*schema_problems(spec, trigger, action)]
        if not problems:
            problems = [problem for extension in self._extensions for problem in extension.problems(spec)]
        if problems:
            raise BadInput(f"The rule {spec.ref} cannot be like this.", problems)

    async def _tell(
        self, transaction: Transaction, before: Rule | None, after: Rule | None, change: Change
    ) -> tuple[str, ...]:
        warnings = [
            warning for extension in self._extensions for warning in await extension.changed(transaction, before, after)
        ]
        rule = after or before
        assert rule is not None
        transaction.publish(
            RuleChanged(rule_id=rule.id, rule_ref=rule.ref, trigger_ref=rule.trigger_ref, change=change),
            Cause(uuid7(), None, 0),
            "rules",
        )
        transaction.notify(NotificationType(f"rule_{change}"), rule.id, _shown(rule))
        return tuple(warnings)


def _shown(rule: Rule) -> Shown:
    return {
        "ref": rule.ref,
        "label": rule.label,
        "pack_ref": rule.pack_ref,
        "trigger_ref": rule.trigger_ref,
        "action_ref": rule.action_ref,
        "enabled": rule.enabled,
        "created": rule.created,
        "updated": rule.updated,
    }


def spec_of(rule: Rule) -> RuleSpec:
    """What somebody would have to ask for to get this rule."""
    return RuleSpec(**{field.name: getattr(rule, field.name) for field in fields(RuleSpec)})


def schema_problems(spec: RuleSpec, trigger: Trigger, action: Action) -> Iterator[Problem]:
    """What is wrong with the refs, the templates and the parameters of a rule, as JSON Pointers into it."""
    if not refs.is_component_ref(spec.ref):
        yield Problem("/ref", f"{spec.ref!r} is no ref: {refs.COMPONENT_SHAPE}")
    elif refs.pack_of(spec.ref) != spec.pack_ref:
        yield Problem("/ref", f"{spec.ref!r} must begin with the pack: {spec.pack_ref}.")
    yield from validate(
        with_defaults(spec.trigger_params, trigger.param_schema), trigger.param_schema, where="/trigger_params"
    )
    yield from template_problems(spec.action_params, "/action_params")
    yield from validate(
        with_defaults(spec.action_params, action.param_schema),
        action.param_schema,
        where="/action_params",
        # What a template will give is only known when an event comes; it is checked then.
        skip={name for name, value in spec.action_params.items() if has_template(value)},
    )


def _kind_of(before: Rule, after: Rule) -> Change:
    if before.enabled == after.enabled:
        return Change.UPDATED
    return Change.ENABLED if after.enabled else Change.DISABLED


async def _belongs_to_pack(transaction: Transaction, rule: Rule) -> Conflict:
    return await read_only(transaction.connection, "rule", rule.ref, "Over HTTP it can be enabled and disabled.")


async def read_only(connection: Connection, kind: Kind, ref: str, hint: str = "") -> Conflict:
    """What is said to those who would change over HTTP what comes from a file."""
    file = await queries.file_of(connection, kind, ref)
    where = file[0] if file else "a pack"
    return Conflict(f"The {kind} {ref} comes from {where}: change it there. {hint}".strip())

"""The statements on `attune.pack`, `attune.trigger`, `attune.action`, `attune.rule` and `attune.revision`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from attune.base.json import Json, JsonObject, dumps, loads
from attune.catalog.files import PackFolder
from attune.catalog.formats import ActionFile, TriggerFile
from attune.catalog.model import Action, Definition, Pack, Rule, Trigger
from attune.catalog.sources import Source
from attune.database.paging import Page, Where, Window, fetch_page
from attune.database.pool import Connection, Row, affected

Kind = Literal["pack", "trigger", "action", "rule"]
CLASSES: Final[dict[Kind, type[Definition]]] = {"pack": Pack, "trigger": Trigger, "action": Action, "rule": Rule}


_AT_VERSION = """
    SELECT DISTINCT ON (entity) entity, ref, definition
      FROM attune.revision
     WHERE kind = $1 AND version <= $2
     ORDER BY entity, version DESC
"""


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """A rule as somebody wants it: what is left when ids, owner and times are taken away."""

    ref: str
    pack_ref: str
    label: str
    description: str | None
    action_ref: str
    trigger_ref: str
    conditions: Json
    action_params: JsonObject
    trigger_params: JsonObject
    enabled: bool
    overlap: str


async def raise_version(connection: Connection) -> int:
    """The next version of all definitions; others who change definitions wait until this transaction ends."""
    version: int = await connection.fetchval(
        "UPDATE attune.definition_version SET version = version + 1 RETURNING version"
    )
    return version


async def current_version(connection: Connection) -> int:
    """The version of the definitions that this statement sees."""
    version: int = await connection.fetchval("SELECT version FROM attune.definition_version")
    return version


async def record_revision(connection: Connection, version: int, kind: Kind, entity: int, now: datetime) -> None:
    """Record what a definition is at `version`, as its row stands now."""
    await connection.execute(
        f"""
        INSERT INTO attune.revision (version, kind, entity, ref, definition, created)
        SELECT $1, '{kind}', id, ref, to_jsonb(definition), $3 FROM attune.{kind} AS definition WHERE id = $2
            ON CONFLICT (kind, entity, version) DO UPDATE SET definition = excluded.definition, ref = excluded.ref
        """,
        version,
        entity,
        now,
    )


async def record_deletion(
    connection: Connection, version: int, kind: Kind, entity: int, ref: str, now: datetime
) -> None:
    """Record that a definition is gone at `version`."""
    await connection.execute(
        f"INSERT INTO attune.revision (version, kind, entity, ref, created) VALUES ($1, '{kind}', $2, $3, $4)",
        version,
        entity,
        ref,
        now,
    )


async def changes_since(connection: Connection, version: int) -> Sequence[tuple[int, Kind, int, Definition | None]]:
    """The newest revision of each definition that changed after `version`: version, kind, id, definition (None:
    deleted)."""
    rows = await connection.fetch(
        """
        SELECT DISTINCT ON (kind, entity) version, kind, entity, definition
          FROM attune.revision
         WHERE version > $1
         ORDER BY kind, entity, version DESC
        """,
        version,
    )
    return [(row["version"], row["kind"], row["entity"], _revision(row)) for row in rows]


def _revision(row: Row) -> Definition | None:
    definition = loads(row["definition"])
    return None if definition is None else CLASSES[row["kind"]].from_revision(definition)


async def rules_at(connection: Connection, version: int, trigger_ref: str) -> list[Rule]:
    """The rules of a trigger as they were at `version`, in the order of their refs."""
    rows = await connection.fetch(
        f"SELECT definition FROM ({_AT_VERSION}) AS rule WHERE definition ->> 'trigger_ref' = $3 ORDER BY ref",
        "rule",
        version,
        trigger_ref,
    )
    return [Rule.from_revision(loads(row["definition"])) for row in rows]


async def rule_at(connection: Connection, version: int, rule: int) -> Rule | None:
    """A rule as it was at `version`."""
    row = await connection.fetchrow(
        f"SELECT definition FROM ({_AT_VERSION}) AS rule WHERE entity = $3", "rule", version, rule
    )
    return None if row is None or row["definition"] is None else Rule.from_revision(loads(row["definition"]))


async def packs_at(connection: Connection, version: int) -> list[Pack]:
    """All packs as they were at `version`."""
    rows = await connection.fetch(
        f"SELECT definition FROM ({_AT_VERSION}) AS pack WHERE definition IS NOT NULL", "pack", version
    )
    return [Pack.from_revision(loads(row["definition"])) for row in rows]


async def definition(connection: Connection, kind: Kind, ref: str) -> Definition | None:
    """The definition of that kind and ref."""
    row = await connection.fetchrow(f"SELECT * FROM attune.{kind} WHERE ref = $1", ref)
    return None if row is None else CLASSES[kind].from_row(row)


async def definitions(connection: Connection, kind: Kind) -> list[Definition]:
    """All definitions of a kind."""
    return [CLASSES[kind].from_row(row) for row in await connection.fetch(f"SELECT * FROM attune.{kind} ORDER BY id")]


async def lock_rule(connection: Connection, ref: str) -> Rule | None:
    """The rule with that ref, which nobody else changes until this transaction ends."""
    row = await connection.fetchrow("SELECT * FROM attune.rule WHERE ref = $1 FOR UPDATE", ref)
    return None if row is None else Rule.from_row(row)


async def insert_rule(
    connection: Connection, spec: RuleSpec, *, is_adhoc: bool, owner: int | None, now: datetime
) -> Rule | None:
    """The new rule, or None when its ref is taken. Pack, action and trigger must exist."""
    row = await connection.fetchrow(
        """
        INSERT INTO attune.rule (ref, pack, pack_ref, label, description, action, action_ref, trigger, trigger_ref,
                                 conditions, action_params, trigger_params, enabled, overlap, is_adhoc, owner_identity,
                                 created, updated)
        SELECT $1, pack.id, pack.ref, $3, $4, action.id, action.ref, trigger.id, trigger.ref, $7, $8, $9, $10, $11, $12,
               $13, $14, $14
          FROM attune.pack, attune.action, attune.trigger
         WHERE pack.ref = $2 AND action.ref = $5 AND trigger.ref = $6
            ON CONFLICT (ref) DO NOTHING
        RETURNING *
        """,
        spec.ref,
        spec.pack_ref,
        spec.label,
        spec.description,
        spec.action_ref,
        spec.trigger_ref,
        dumps(spec.conditions),
        dumps(spec.action_params),
        dumps(spec.trigger_params),
        spec.enabled,
        spec.overlap,
        is_adhoc,
        owner,
        now,
    )
    return None if row is None else Rule.from_row(row)


async def update_rule(connection: Connection, rule_id: int, spec: RuleSpec, now: datetime) -> Rule:
    """The rule after it became what `spec` says; its ref and pack stay."""
    row = await connection.fetchrow(
        """
        UPDATE attune.rule
           SET label = $2, description = $3, conditions = $6, action_params = $7, trigger_params = $8, enabled = $9,
               action_ref = $4, action = (SELECT id FROM attune.action WHERE ref = $4),
               trigger_ref = $5, trigger = (SELECT id FROM attune.trigger WHERE ref = $5),
               overlap = $10, updated = $11
         WHERE id = $1
        RETURNING *
        """,
        rule_id,
        spec.label,
        spec.description,
        spec.action_ref,
        spec.trigger_ref,
        dumps(spec.conditions),
        dumps(spec.action_params),
        dumps(spec.trigger_params),
        spec.enabled,
        spec.overlap,
        now,
    )
    assert row is not None, "the caller holds the lock of the row"
    return Rule.from_row(row)


async def delete_rule(connection: Connection, rule_id: int) -> None:
    """Delete a rule."""
    await connection.execute("DELETE FROM attune.rule WHERE id = $1", rule_id)


async def installed(connection: Connection, directory: str, checksum: str) -> str | None:
    """The ref of the pack that was installed from that folder, if its files were then as they are now."""
    ref: str | None = await connection.fetchval(
        "SELECT ref FROM attune.pack WHERE storage_path = $1 AND checksum = $2", directory, checksum
    )
    return ref


async def upsert_pack(connection: Connection, folder: PackFolder, now: datetime) -> tuple[int, bool]:
    """The id of the pack, which is now what its folder says, and whether it was not before."""
    pack = folder.pack
    changed = await connection.fetchval(
        """
        INSERT INTO attune.pack AS known (ref, label, description, version, conf_schema, config, meta, tags,
                                          runtime_deps, dependencies, is_standard, storage_path, checksum, created,
                                          updated)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '', $13, $13)
            ON CONFLICT (ref) DO UPDATE
           SET label = excluded.label, description = excluded.description, version = excluded.version,
               conf_schema = excluded.conf_schema, config = excluded.config, meta = excluded.meta, tags = excluded.tags,
               runtime_deps = excluded.runtime_deps, dependencies = excluded.dependencies,
               is_standard = excluded.is_standard, storage_path = excluded.storage_path, updated = excluded.updated
         WHERE (known.label, known.description, known.version, known.conf_schema, known.config, known.meta, known.tags,
                known.runtime_deps, known.dependencies, known.is_standard, known.storage_path)
               IS DISTINCT FROM
               (excluded.label, excluded.description, excluded.version, excluded.conf_schema, excluded.config,
                excluded.meta, excluded.tags, excluded.runtime_deps, excluded.dependencies, excluded.is_standard,
                excluded.storage_path)
        RETURNING id
        """,
        pack.ref,
        pack.label,
        pack.description,
        pack.version,
        dumps(pack.conf_schema),
        dumps(pack.config),
        dumps(pack.meta),
        pack.tags,
        pack.runtime_deps,
        pack.dependencies,
        pack.system,
        str(folder.directory),
        now,
    )
    pack_id: int = await connection.fetchval(
        "UPDATE attune.pack SET checksum = $2 WHERE ref = $1 RETURNING id", pack.ref, folder.checksum
    )
    return pack_id, changed is not None


async def upsert_trigger(
    connection: Connection, trigger: TriggerFile, pack: int, pack_ref: str, now: datetime
) -> int | None:
    """The id of the trigger, which is now what its file says; None if it was so before."""
    trigger_id: int | None = await connection.fetchval(
        """
        INSERT INTO attune.trigger AS known (ref, pack, pack_ref, label, description, enabled, param_schema, out_schema,
                                             created, updated)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
            ON CONFLICT (ref) DO UPDATE
           SET pack = excluded.pack, pack_ref = excluded.pack_ref, label = excluded.label,
               description = excluded.description, enabled = excluded.enabled, param_schema = excluded.param_schema,
               out_schema = excluded.out_schema, updated = excluded.updated
         WHERE (known.pack, known.label, known.description, known.enabled, known.param_schema, known.out_schema)
               IS DISTINCT FROM
               (excluded.pack, excluded.label, excluded.description, excluded.enabled, excluded.param_schema,
                excluded.out_schema)
        RETURNING id
        """,
        trigger.ref,
        pack,
        pack_ref,
        trigger.label,
        trigger.description,
        trigger.enabled,
        dumps(trigger.parameters),
        dumps(trigger.output),
        now,
    )
    return trigger_id


async def upsert_action(
    connection: Connection, action: ActionFile, pack: int, pack_ref: str, now: datetime
) -> int | None:
    """The id of the action, which is now what its file says; None if it was so before."""
    action_id: int | None = await connection.fetchval(
        """
        INSERT INTO attune.action AS known (ref, pack, pack_ref, label, description, entrypoint, runtime_ref,
                                            param_schema, out_schema, output_format, timeout_seconds, max_retries,
                                            retry_delay, retry_backoff, retry_jitter, retry_on, created, updated)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17)
            ON CONFLICT (ref) DO UPDATE
           SET pack = excluded.pack, pack_ref = excluded.pack_ref, label = excluded.label,
               description = excluded.description, entrypoint = excluded.entrypoint,
               runtime_ref = excluded.runtime_ref, param_schema = excluded.param_schema,
               out_schema = excluded.out_schema, output_format = excluded.output_format,
               timeout_seconds = excluded.timeout_seconds, max_retries = excluded.max_retries,
               retry_delay = excluded.retry_delay, retry_backoff = excluded.retry_backoff,
               retry_jitter = excluded.retry_jitter, retry_on = excluded.retry_on, updated = excluded.updated
         WHERE (known.pack, known.label, known.description, known.entrypoint, known.runtime_ref, known.param_schema,
                known.out_schema, known.output_format, known.timeout_seconds, known.max_retries, known.retry_delay,
                known.retry_backoff, known.retry_jitter, known.retry_on)
               IS DISTINCT FROM
               (excluded.pack, excluded.label, excluded.description, excluded.entrypoint, excluded.runtime_ref,
                excluded.param_schema, excluded.out_schema, excluded.output_format, excluded.timeout_seconds,
                excluded.max_retries, excluded.retry_delay, excluded.retry_backoff, excluded.retry_jitter,
                excluded.retry_on)
        RETURNING id
        """,
        action.ref,
        pack,
        pack_ref,
        action.label,
        action.description,
        action.entry_point,
        action.runtime.value,
        dumps(action.parameters),
        dumps(action.output),
        action.output_format.value,
        action.timeout,
        action.max_retries,
        action.retry_delay,
        action.retry_backoff.value,
        action.retry_jitter,
        action.retry_on,
        now,
    )
    return action_id


async def keep_files(
    connection: Connection, pack: int, sources: Sequence[Source], described: Mapping[str, str]
) -> None:
    """Keep the files of a pack in place of those that were kept; `described` are the refs of what they describe."""
    paths = [source.path for source in sources]
    await connection.execute("DELETE FROM attune.pack_file WHERE pack = $1 AND path <> ALL($2::text[])", pack, paths)
    await connection.execute(
        """
        INSERT INTO attune.pack_file AS known (pack, path, content, executable, ref)
        SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::boolean[], $5::text[])
            ON CONFLICT (pack, path) DO UPDATE
           SET content = excluded.content, executable = excluded.executable, ref = excluded.ref
         WHERE (known.content, known.executable, known.ref)
               IS DISTINCT FROM (excluded.content, excluded.executable, excluded.ref)
        """,
        pack,
        paths,
        [source.content for source in sources],
        [source.executable for source in sources],
        [described.get(path) for path in paths],
    )


async def files_of(connection: Connection, pack_ref: str) -> list[Source]:
    """The files that are kept of a pack."""
    rows = await connection.fetch(
        """
        SELECT path, content, executable
          FROM attune.pack_file WHERE pack = (SELECT id FROM attune.pack WHERE ref = $1)
         ORDER BY path
        """,
        pack_ref,
    )
    return [Source(row["path"], row["content"], row["executable"]) for row in rows]


async def file_of(connection: Connection, kind: Kind, ref: str) -> tuple[str, bytes] | None:
    """Where the file lies that describes something, and what it says; None if no file does."""
    row = await connection.fetchrow(
        """
        SELECT pack.storage_path || '/' || file.path AS path, content
          FROM attune.pack_file AS file JOIN attune.pack ON pack.id = file.pack
         WHERE CASE $1::text WHEN 'pack' THEN pack.ref = $2 AND file.path = 'pack.yaml'
                             ELSE file.ref = $2 AND starts_with(file.path, $1 || 's/') END
        """,
        kind,
        ref,
    )
    return None if row is None else (row["path"], row["content"])


async def pack_folders(connection: Connection) -> dict[str, str]:
    """The folder that each pack was read from, by ref; without those of which only rules of people are left."""
    rows = await connection.fetch("SELECT ref, storage_path FROM attune.pack WHERE checksum <> '' ORDER BY ref")
    return {row["ref"]: row["storage_path"] for row in rows}


async def delete_pack(connection: Connection, ref: str) -> int | None:
    """Delete a pack that has nothing in it any more. Its id; None when people have made rules in it, and then only its
    files are forgotten."""
    pack_id: int | None = await connection.fetchval(
        "DELETE FROM attune.pack WHERE ref = $1 AND NOT EXISTS (SELECT FROM attune.rule WHERE pack_ref = $1) "
        "RETURNING id",
        ref,
    )
    if pack_id is None:
        await connection.execute(
            "DELETE FROM attune.pack_file WHERE pack = (SELECT id FROM attune.pack WHERE ref = $1)", ref
        )
        await connection.execute("UPDATE attune.pack SET checksum = '' WHERE ref = $1", ref)
    return pack_id


async def enabled_in_files(connection: Connection, pack_ref: str) -> dict[str, bool | None]:
    """What the files of the rules of a pack said of `enabled` when they were read last, by ref."""
    rows = await connection.fetch(
        "SELECT ref, enabled_in_file FROM attune.rule WHERE pack_ref = $1 AND NOT is_adhoc", pack_ref
    )
    return {row["ref"]: row["enabled_in_file"] for row in rows}


async def note_enabled_in_file(connection: Connection, rule_id: int, enabled: bool) -> None:
    """Remember what the file of a rule says of `enabled`."""
    await connection.execute("UPDATE attune.rule SET enabled_in_file = $2 WHERE id = $1", rule_id, enabled)


async def all_refs(connection: Connection, kind: Kind) -> list[str]:
    """The refs of all definitions of a kind."""
    return [row["ref"] for row in await connection.fetch(f"SELECT ref FROM attune.{kind} ORDER BY ref")]


async def components_of(connection: Connection, kind: Kind, pack_ref: str) -> dict[str, int]:
    """Refs and ids of what a pack brought, of one kind; of rules, only those that came with it."""
    condition = " AND NOT is_adhoc" if kind == "rule" else ""
    rows = await connection.fetch(f"SELECT ref, id FROM attune.{kind} WHERE pack_ref = $1{condition}", pack_ref)
    return {row["ref"]: row["id"] for row in rows}


async def delete_component(connection: Connection, kind: Kind, entity: int) -> list[int]:
    """Delete a trigger or an action. The rules that named it, which keep the ref and lose the id."""
    rows = await connection.fetch(f"UPDATE attune.rule SET {kind} = NULL WHERE {kind} = $1 RETURNING id", entity)
    await connection.execute(f"DELETE FROM attune.{kind} WHERE id = $1", entity)
    return [row["id"] for row in rows]


async def relink_rules(connection: Connection) -> list[int]:
    """Give rules the ids of what they name, where that came back under another id; the rules that changed."""
    rows = await connection.fetch(
        """
        UPDATE attune.rule AS rule
           SET trigger = found.trigger, action = found.action
          FROM (SELECT r.id, t.id AS trigger, a.id AS action
                  FROM attune.rule r
                  LEFT JOIN attune.trigger t ON t.ref = r.trigger_ref
                  LEFT JOIN attune.action a ON a.ref = r.action_ref) AS found
         WHERE rule.id = found.id AND (rule.trigger, rule.action) IS DISTINCT FROM (found.trigger, found.action)
        RETURNING rule.id
        """
    )
    return [row["id"] for row in rows]


async def page(connection: Connection, kind: Kind, where: Where, window: Window) -> Page:
    """A page of definitions, in the order of their refs."""
    return await fetch_page(connection, "*", f"attune.{kind}", where, window, cursor="ref", descending=False)


async def version_at(connection: Connection, moment: datetime) -> int:
    """The version that the definitions had at a moment: whoever reads them from then on knows it, or a later one."""
    version: int = await connection.fetchval(
        """
        SELECT coalesce((SELECT version - 1 FROM attune.revision WHERE created >= $1 ORDER BY version LIMIT 1),
                        (SELECT version FROM attune.definition_version))
        """,
        moment,
    )
    return version


# A deletion goes after what it deleted, or that would be there again.
DELETE_REVISIONS = """
    DELETE FROM attune.revision
     WHERE ctid = ANY(ARRAY(
           SELECT ctid
             FROM attune.revision AS r
            WHERE version <= $1
              AND (EXISTS (SELECT FROM attune.revision
                            WHERE kind = r.kind AND entity = r.entity AND version > r.version AND version <= $1)
                   OR (definition IS NULL
                       AND NOT EXISTS (SELECT FROM attune.revision
                                        WHERE kind = r.kind AND entity = r.entity AND version < r.version)))
            LIMIT $2))
"""


async def delete_revisions(connection: Connection, version: int, limit: int) -> int:
    """Forget up to `limit` revisions that make no difference to whoever knows `version` or a later one: those that
    another had replaced by then, and deletions. How many there were; with more than none there may be others."""
    return affected(await connection.execute(DELETE_REVISIONS, version, limit))

"""Packs, triggers and actions: what there is to build rules from."""

from collections.abc import Callable
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from attune.api.answers import deleted, many, one
from attune.api.endpoints import Answer, Call, Endpoint, NoQuery, Permission
from attune.api.masks import masked_by
from attune.api.paging import PageQuery
from attune.base.errors import Conflict, NotFound
from attune.catalog import queries
from attune.catalog.export import archive
from attune.catalog.install import Installer
from attune.catalog.model import Action, Definition, Pack, Trigger
from attune.catalog.queries import Kind
from attune.catalog.rules import read_only
from attune.catalog.sources import Source
from attune.database.paging import Where
from attune.database.pool import Connection, Database

View = Callable[[Any], dict[str, Any]]


class ChangeBody(BaseModel):
    """What somebody may want to change of a pack, a trigger or an action; files have the last word on all of it."""

    model_config = ConfigDict(extra="forbid")

    label: Any = None
    description: Any = None
    enabled: Any = None
    version: Any = None
    conf_schema: Any = None
    config: Any = None
    meta: Any = None
    tags: Any = None
    param_schema: Any = None
    out_schema: Any = None
    entrypoint: Any = None
    runtime_ref: Any = None
    output_format: Any = None
    timeout_seconds: Any = None


class CatalogRoutes:
    def __init__(self, database: Database, installer: Installer) -> None:
        self._database = database
        self._installer = installer

    def endpoints(self) -> list[Endpoint]:
        return [
            self._list("/api/v1/triggers/enabled", "trigger", trigger_summary, enabled=True),
            self._list("/api/v1/packs/{pack}/triggers", "trigger", trigger_summary),
            self._list("/api/v1/packs/{pack}/actions", "action", action_summary),
            *self._of("pack", Pack, pack_summary, pack_view),
            Endpoint(
                "GET",
                "/api/v1/packs/{ref}/files",
                Permission("packs", "export"),
                self.files,
                "List the files that are kept of a pack",
            ),
            Endpoint(
                "GET",
                "/api/v1/packs/{ref}/archive",
                Permission("packs", "export"),
                self.archive,
                "Get the files of a pack, as a tar.gz",
                answer=Answer.ARCHIVE,
            ),
            *self._of("trigger", Trigger, trigger_summary, trigger_view),
            *self._of("action", Action, action_summary, action_view),
        ]

    def _of(self, kind: Kind, model: type[Definition], summary: View, view: View) -> list[Endpoint]:
        async def show(call: Call[NoQuery, None]) -> Response:
            async with self._database.acquire() as connection:
                found = await queries.definition(connection, kind, call.path["ref"])
            if not isinstance(found, model):
                raise NotFound(f"There is no {kind} {call.path['ref']}.")
            return one(view(found))

        async def change(call: Call[NoQuery, ChangeBody]) -> Response:
            raise await self._refusal(kind, call.path["ref"])

        async def delete(call: Call[NoQuery, None]) -> Response:
            raise await self._refusal(kind, call.path["ref"])

        permission = Permission(f"{kind}s", "read", anonymous=True)
        path = f"/api/v1/{kind}s/{{ref}}"
        return [
            Endpoint("GET", path, permission, show, f"Show a {kind}"),
            Endpoint(
                "PUT",
                path,
                Permission(f"{kind}s", "update"),
                change,
                f"Refused: the file of the {kind} has the last word, and the answer names it",
                body=ChangeBody,
                aliases=("PATCH",),
            ),
            Endpoint(
                "DELETE",
                path,
                Permission(f"{kind}s", "delete"),
                self.delete_pack if kind == "pack" else delete,
                "Delete a pack whose folder is read no more"
                if kind == "pack"
                else f"Refused: remove the file of the {kind}, which the answer names",
            ),
            self._list(f"/api/v1/{kind}s", kind, summary),
        ]

    def _list(self, path: str, kind: Kind, summary: View, *, enabled: bool | None = None) -> Endpoint:
        async def answer(call: Call[PageQuery, None]) -> Response:
            where = Where()
            where.add_if("enabled = {}", enabled)
            where.add_if("pack_ref = {}", call.path.get("pack"))
            async with self._database.acquire() as connection:
                await exists(connection, "pack", call.path.get("pack"))
                page = await queries.page(connection, kind, where, call.query.window())
            items = [queries.CLASSES[kind].from_row(row) for row in page.rows]
            return many([summary(item) for item in items], page, call.query, items[-1].ref if items else None)

        permission = Permission(f"{kind}s", "read", anonymous=True)
        return Endpoint("GET", path, permission, answer, f"List {kind}s", query=PageQuery)

    async def delete_pack(self, call: Call[NoQuery, None]) -> Response:
        ref = call.path["ref"]
        refusal = await self._refusal("pack", ref)
        if ref in self._installer.folders:
            raise refusal
        await self._installer.remove(ref)
        return deleted(f"The pack {ref} is deleted.")

    async def _refusal(self, kind: Kind, ref: str) -> Conflict:
        async with self._database.acquire() as connection:
            await exists(connection, kind, ref)
            return await read_only(connection, kind, ref)

    async def files(self, call: Call[NoQuery, None]) -> Response:
        found = await self._files(call.path["ref"])
        kept = [
            {
                "path": file.path,
                "size": None if file.content is None else len(file.content),
                "executable": file.executable,
                "is_kept": file.content is not None,
            }
            for file in found
        ]
        return one({"files": kept})

    async def archive(self, call: Call[NoQuery, None]) -> Response:
        ref = call.path["ref"]
        content = await anyio.to_thread.run_sync(archive, ref, await self._files(ref))
        headers = {"Content-Disposition": f'attachment; filename="{ref}.tar.gz"'}
        return Response(content, media_type="application/gzip", headers=headers)

    async def _files(self, ref: str) -> list[Source]:
        async with self._database.acquire() as connection:
            await exists(connection, "pack", ref)
            return await queries.files_of(connection, ref)


async def exists(connection: Connection, kind: Kind, ref: str | None) -> None:
    """Raise NotFound when a path names a definition that does not exist."""
    if ref is not None and await queries.definition(connection, kind, ref) is None:
        raise NotFound(f"There is no {kind} {ref}.")


def pack_summary(pack: Pack) -> dict[str, Any]:
    return {
        "id": pack.id,
        "ref": pack.ref,
        "label": pack.label,
        "description": pack.description,
        "version": pack.version,
        "tags": pack.tags,
        "is_standard": pack.is_standard,
        "created": pack.created,
        "updated": pack.updated,
    }


def pack_view(pack: Pack) -> dict[str, Any]:
    return pack_summary(pack) | {
        "conf_schema": pack.conf_schema,
        "config": masked_by(pack.config, pack.conf_schema),
        "meta": pack.meta,
        "runtime_deps": pack.runtime_deps,
        "dependencies": pack.dependencies,
    }


def trigger_summary(trigger: Trigger) -> dict[str, Any]:
    return {
        "id": trigger.id,
        "ref": trigger.ref,
        "pack_ref": trigger.pack_ref,
        "label": trigger.label,
        "description": trigger.description,
        "enabled": trigger.enabled,
        "created": trigger.created,
        "updated": trigger.updated,
    }


def trigger_view(trigger: Trigger) -> dict[str, Any]:
    return trigger_summary(trigger) | {
        "pack": trigger.pack,
        "param_schema": trigger.param_schema,
        "out_schema": trigger.out_schema,
    }


def action_summary(action: Action) -> dict[str, Any]:
    return {
        "id": action.id,
        "ref": action.ref,
        "pack_ref": action.pack_ref,
        "label": action.label,
        "description": action.description,
        "entrypoint": action.entrypoint,
        "runtime_ref": action.runtime_ref,
        "created": action.created,
        "updated": action.updated,
    }


def action_view(action: Action) -> dict[str, Any]:
    return action_summary(action) | {
        "pack": action.pack,
        "param_schema": action.param_schema,
        "out_schema": action.out_schema,
        "output_format": action.output_format,
        "timeout_seconds": action.timeout_seconds,
        "max_retries": action.max_retries,
        "retry_delay": action.retry_delay,
        "retry_backoff": action.retry_backoff,
        "retry_jitter": action.retry_jitter,
        "retry_on": action.retry_on,
    }

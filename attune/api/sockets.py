"""Live views through a WebSocket, in the protocol of the platform."""

from itertools import count
from typing import Any, Final

import anyio
import orjson
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from attune.access.model import Caller, How
from attune.api.authentication import Gate
from attune.api.endpoints import Permission, Socket
from attune.api.paging import id_of
from attune.api.protocol import ABORT_SCOPE, SOCKET_PATH
from attune.api.routes.streams import readable
from attune.api.streams import lost_right
from attune.base.errors import AttuneError, BadInput, Forbidden
from attune.bus.messages import Entity, NotificationType
from attune.live.forms import messages
from attune.live.notes import Filter
from attune.live.views import End, Kind, LiveViews, Reader

PROTOCOL: Final = "attune.v1"
MOST_FILTERS: Final = 100
_UNAUTHORIZED = 4401
_LONGEST_REASON = 100
_CODES = {End.SLOW: 1013, End.STOPPING: 1012}
_FILTERS = "all, entity_type:TYPE, entity:TYPE:ID, notification_type:TYPE and user:ID"

_numbers = count(1)


class Said(BaseModel):
    """What a client says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: str
    filter: str | None = None


def live_socket(live: LiveViews, gate: Gate) -> Socket:
    """The WebSocket of live views."""

    async def talk(connection: WebSocket, caller: Caller) -> None:
        await _Talk(live, gate, socket, connection, caller).run()

    socket = Socket(SOCKET_PATH, Permission("stream", "read", anonymous=True), live.check, talk)
    return socket


class _Talk:
    """One client: what it says, and what it is told."""

    def __init__(self, live: LiveViews, gate: Gate, socket: Socket, connection: WebSocket, caller: Caller) -> None:
        self._live = live
        self._gate = gate
        self._socket = socket
        self._connection = connection
        self._caller = caller
        self._wanted: dict[str, Filter] = {}
        self._reader = Reader(Kind.WEBSOCKET, messages, frozenset())

    async def run(self) -> None:
        """Talk until one of both ends it."""
        offered = self._connection.scope["subprotocols"]
        await self._connection.accept(PROTOCOL if PROTOCOL in offered else None)
        try:
            await self._send(
                {
                    "type": "welcome",
                    "client_id": f"client_{next(_numbers)}",
                    "message": "Connected to Attune Notifier",
                }
            )
            async with anyio.create_task_group() as tasks:
                with self._live.reading(self._reader):
                    tasks.start_soon(self._listen, tasks.cancel_scope)
                    tasks.start_soon(self._until_stuck, tasks.cancel_scope)
                    await self._tell()
                tasks.cancel_scope.cancel()
        except* WebSocketDisconnect:
            pass

    async def _tell(self) -> None:
        while True:
            taken = await self._live.take(self._reader)
            if taken.reset and self._wanted:
                await self._send_error(f"{taken.reset} Read again what you show.")
            for text in taken.parts:
                await self._connection.send_text(text.decode())
            if taken.end is not None:
                await self._connection.close(_CODES[taken.end], taken.end)
                return
            lost = await lost_right(lambda: self._gate.caller(self._connection, self._socket)) if taken.pulse else None
            if lost is not None:
                await self._connection.close(_UNAUTHORIZED, lost[:_LONGEST_REASON])
                return

    async def _listen(self, scope: anyio.CancelScope) -> None:
        while (said := await self._connection.receive())["type"] != "websocket.disconnect":
            try:
                self._hear(said.get("text") or "")
            except AttuneError as error:
                await self._send_error(error.message)
        scope.cancel()

    def _hear(self, text: str) -> None:
        try:
            said = Said.model_validate_json(text)
        except ValidationError as error:
            raise BadInput('Say a JSON object, such as {"type": "subscribe", "filter": "all"}.') from error
        match said.type:
            case "ping":
                return
            case "subscribe":
                wanted = self._parse(said.filter or "")
                if len(self._wanted) >= MOST_FILTERS:
                    raise BadInput(f"{MOST_FILTERS} filters are enough; unsubscribe from some.")
                self._wanted[said.filter or ""] = wanted
            case "unsubscribe":
                self._wanted.pop(said.filter or "", None)
            case _:
                raise BadInput(f"There is no {said.type}; say subscribe, unsubscribe or ping.")
        self._live.want(self._reader, frozenset(self._wanted.values()))

    def _parse(self, text: str) -> Filter:
        kind, *values = text.split(":")
        try:
            match kind, values:
                case "all", []:
                    return Filter(readable(self._gate, self._caller))
                case "entity_type", [entity]:
                    return Filter(self._allowed(Entity(entity)))
                case "entity", [entity, number]:
                    return Filter(self._allowed(Entity(entity)), ids=frozenset({_id(number)}))
                case "notification_type", [name]:
                    wanted = NotificationType(name)
                    return Filter(self._allowed(wanted.entity), kinds=frozenset({wanted}))
                case "user", [number]:
                    return self._of_user(_id(number))
                case _:
                    pass
        except ValueError as error:
            raise BadInput(f"{text!r} names nothing that there is; filters are {_FILTERS}.") from error
        raise BadInput(f"There is no filter {text!r}; filters are {_FILTERS}.")

    def _allowed(self, entity: Entity) -> frozenset[Entity]:
        if entity not in readable(self._gate, self._caller):
            raise Forbidden(f"Insufficient permissions: you may not read {entity}.")
        return frozenset({entity})

    def _of_user(self, user: int) -> Filter:
        """What is for one user: nothing is so far, but that is nobody else's business."""
        identity = self._caller.identity
        if self._caller.how is not How.LOCAL and not (identity and (identity.administrator or identity.id == user)):
            raise Forbidden("Insufficient permissions: that is somebody else.")
        return Filter(frozenset())

    async def _until_stuck(self, scope: anyio.CancelScope) -> None:
        await self._reader.stuck.wait()
        scope.cancel()
        self._connection.scope[ABORT_SCOPE]()

    async def _send_error(self, message: str) -> None:
        await self._send({"type": "error", "message": message})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._connection.send_text(orjson.dumps(message).decode())


def _id(text: str) -> int:
    number = id_of(text)
    if number is None:
        raise ValueError(text)
    return number

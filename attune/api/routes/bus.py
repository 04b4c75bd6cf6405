"""The bus, for people: the routing table, the queues, and the chain of a message."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.responses import Response

from attune.api.answers import one
from attune.api.endpoints import Call, Endpoint, NoQuery, Permission
from attune.base.errors import NotFound
from attune.bus import queries
from attune.bus.bus import Bus
from attune.bus.topology import Queue, QueueKind, Topology


class BusRoutes:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def endpoints(self) -> list[Endpoint]:
        read = Permission("bus", "read")
        return [
            Endpoint("GET", "/api/v1/bus/topology", read, self.topology, "The routing table"),
            Endpoint("GET", "/api/v1/bus/queues", read, self.queues, "Depths and counters of all queues"),
            Endpoint(
                "GET",
                "/api/v1/bus/trace/{correlation_id}",
                read,
                self.trace,
                "Every hop of a chain of messages",
            ),
        ]

    async def topology(self, _: Call[NoQuery, None]) -> Response:
        return one(topology_view(self._bus.topology))

    async def queues(self, _: Call[NoQuery, None]) -> Response:
        async with self._bus.database.acquire() as connection:
            waiting = await queries.waiting_by_queue(connection)
            dead = await queries.count_dead_letters(connection)
        return one({"queues": self._queues(waiting, dead), "unroutable": dict(self._bus.counters.unroutable)})

    async def trace(self, call: Call[NoQuery, None]) -> Response:
        correlation_id = _uuid(call.path["correlation_id"])
        async with self._bus.database.acquire() as connection:
            hops = await queries.trace(connection, correlation_id)
        if not hops:
            raise NotFound(f"Nothing is known of the chain {correlation_id}: it never was, or its trace was dropped.")
        return one({"correlation_id": correlation_id, "hops": [dict(hop) for hop in hops]})

    def _queues(self, waiting: Mapping[str, tuple[int, datetime]], dead: int) -> list[dict[str, Any]]:
        views = []
        for row in self._bus.topology.queues:
            if row.kind is QueueKind.PARKING:
                views.append({"name": row.name, "kind": row.kind, "waiting": dead})
            elif row.kind is QueueKind.BROADCAST:
                depth = self._bus.broadcasts.depth(row.name)
                views.append({"name": row.name, "kind": row.kind, "waiting": depth, **self._published(row.name)})
            else:
                views.extend(self._durable(row, name, waiting) for name in self._bus.queues(row))
        return views

    def _durable(self, row: Queue, name: str, waiting: Mapping[str, tuple[int, datetime]]) -> dict[str, Any]:
        count, oldest = waiting.get(name, (0, None))
        depth = self._bus.broker.depth(name)
        counters = self._bus.counters.of(name)
        return {
            "name": name,
            "kind": row.kind,
            "waiting": count,
            "oldest": oldest,
            "in_memory": depth.waiting,
            "in_flight": depth.in_flight,
            "spilled": depth.spilled,
            **asdict(counters),
            **self._published(name),
        }

    def _published(self, name: str) -> dict[str, Any]:
        published = self._bus.counters.published
        return {"published": {kind: count for (kind, queue), count in published.items() if queue == name}}


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound(f"{text} is no correlation id.") from error


def topology_view(topology: Topology) -> dict[str, Any]:
    """The routing table as JSON."""
    return {
        "exchanges": [asdict(exchange) for exchange in topology.exchanges],
        "queues": [
            {
                "name": queue.name,
                "kind": queue.kind,
                "exchange": queue.exchange,
                "keys": queue.keys,
                "message": None if queue.message is None else queue.message.__name__,
                "consumer": queue.consumer,
            }
            for queue in topology.queues
        ],
    }

"""Writes `docs/routing.md` from the routing table: `python -m tests.docs.routing`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from attune.bus.topology import TOPOLOGY, QueueKind, Topology

PATH = Path(__file__).resolve().parents[2] / "docs" / "routing.md"

_INTRODUCTION = """\
# How messages travel

Everything that happens in Attune travels as a message. A message is published in the transaction of the change that
causes it: one row in `attune.delivery` for each durable queue that is bound to its key. After the commit it is handed
to its consumer in memory; the row stays the truth, and the consumer's own transaction begins by deleting it. A message
carries ids and refs, and its consumer reads the rows that it needs.

This page is written from the routing table (`attune/bus/topology.py`) by `python -m tests.docs.routing`; a test keeps
it true. `attune bus topology` shows the same table, `attune bus queues` what waits in it, and `attune bus trace` the
way of one chain of messages. The server refuses to start with a table in which a message could get lost.
"""

_KINDS = """\
- **work**: durable; one consumer takes batches, and a delivery is a row until it is done.
- **addressed**: as work, a queue for each receiver.
- **broadcast**: transient; a hint that something changed, always followed by reading what is true.
- **parking**: nothing consumes it.

A delivery that fails is tried again after 1, 4, 16 and 64 seconds; after `bus.max_attempts` attempts it is a dead
letter, with its error: [dead letters](dead-letters.md) tells how to look at them, replay them and discard them.
"""

_DECISIONS = """\
## Where a new message belongs

| It says that … | Exchange |
|---|---|
| something happened in the world, or a definition was made, changed or deleted | `attune.events` |
| an enforcement or an execution goes a step further, or somebody asks that of it | `attune.executions` |
| something that people watch was made or has changed | `attune.notifications` (`Transaction.notify`) |
| a delivery was given up | `attune.dlx` (the bus does this itself) |

| It has … | Queue |
|---|---|
| an effect that must happen exactly once | work |
| such an effect, at one certain receiver | addressed: name the receiver's id in the key |
| no effect; somebody keeps a copy of rows in memory and wants to read them again | broadcast |

1. Write the class in `attune/bus/messages.py`, with its exchange and its key. Keys are exact; a field of the payload
   may stand in braces: an enum's values make a closed list of keys, an integer id makes the message addressed.
2. Add a row to `attune/bus/topology.py`. One queue has one message class and one consumer.
3. Register the consumer in `attune/engine.py`; if a row waits for the message (`about`), also what ends that when its
   dead letter is discarded. The check at start tells what was forgotten.
"""


def render(topology: Topology) -> str:
    """The page."""
    return "\n".join(
        [
            _INTRODUCTION,
            "## Exchanges\n",
            *_table(["Exchange", "Kind", "For"], [[f"`{e.name}`", e.kind, e.purpose] for e in topology.exchanges]),
            "",
            "## Queues\n",
            *_table(
                ["Queue", "Kind", "Exchange", "Key", "Message", "Consumer"],
                [
                    [
                        f"`{queue.name}`",
                        queue.kind,
                        queue.exchange,
                        ", ".join(f"`{key}`" for key in queue.keys),
                        queue.message.__name__ if queue.message else "dead deliveries",
                        queue.consumer,
                    ]
                    for queue in topology.queues
                ],
            ),
            "",
            _KINDS,
            "## The flow\n",
            "```mermaid",
            *_flow(topology),
            "```",
            "",
            _DECISIONS.rstrip(),
            "",
        ]
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _flow(topology: Topology) -> Iterator[str]:
    yield "flowchart LR"
    for exchange in topology.exchanges:
        yield f'    {_id(exchange.name)}{{{{"{exchange.name}"}}}}'
    for queue in topology.queues:
        yield f'    {_id(queue.name)}["{queue.name}"]'
        consumer = _id(f"consumer {queue.consumer}")
        yield f'    {consumer}(["{queue.consumer}"])'
        yield f'    {_id(queue.exchange)} -- "{", ".join(queue.keys)}" --> {_id(queue.name)}'
        arrow = "-.->" if queue.kind is QueueKind.BROADCAST else "-->"
        yield f"    {_id(queue.name)} {arrow} {consumer}"


def _id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


if __name__ == "__main__":
    PATH.write_text(render(TOPOLOGY))

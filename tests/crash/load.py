"""Who sends events: numbered, again and again until the server says yes, and remembering what it said."""

from collections import Counter
from contextlib import suppress
from random import Random

import anyio
import httpx2

from tests.crash.server import Server
from tests.crash.workload import COUNTED, FLOODED, POISONED, body
from tests.support.waiting import eventually

_SENDERS = 12
_PAUSE = 0.05
_INQUIRIES = "/api/v1/inquiries"
_NO_KEY = 11
"""Every eleventh number is sent once, without a key: who gets no answer does not know."""


class People:
    """Answers what is to be answered, each with its own prompt, until cancelled. `answered` are those that the server
    has taken, with their prompts."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.answered: dict[int, str] = {}

    async def run(self) -> None:
        async with self._server.client() as client:
            while True:
                with suppress(OSError, httpx2.HTTPError):
                    await self._answer_some(client)
                await anyio.sleep(_PAUSE)

    async def _answer_some(self, client: httpx2.AsyncClient) -> None:
        found = (await client.get(f"{_INQUIRIES}?status=pending&per_page=200")).raise_for_status().json()["data"]
        for summary in found:
            # Those with a timeout are nobody's business.
            if summary["timeout_at"] is None:
                answer = await client.post(
                    f"{_INQUIRIES}/{summary['id']}/respond", json={"response": summary["prompt"]}
                )
                if answer.is_success:
                    self.answered[summary["id"]] = summary["prompt"]


class Load:
    """Sends until it is stopped. `accepted` are the ids of events by number; of what is in `unsure` nobody knows
    whether it was accepted."""

    def __init__(self, server: Server, random: Random) -> None:
        self._server = server
        self._random = random
        self._number = 0
        self._extra: list[str] = []
        self._stopping = False
        self.triggers: dict[int, str] = {}
        self.accepted: dict[int, int] = {}
        self.unsure: set[int] = set()
        self.refused: Counter[int] = Counter()

    async def run(self) -> None:
        """Send until stopped, and what was begun until it is accepted."""
        async with anyio.create_task_group() as senders:
            for _ in range(_SENDERS):
                senders.start_soon(self._send_all)

    def stop(self) -> None:
        self._stopping = True

    def flood(self) -> None:
        """Send events next that many rules match."""
        self._extra.extend([FLOODED] * 40)

    def poison(self) -> None:
        """Send events next that nobody can handle."""
        self._extra.extend([POISONED] * 3)

    async def until_accepted(self, count: int) -> None:
        """Return when so many more were accepted."""
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted, within=120)

    async def _send_all(self) -> None:
        async with self._server.client() as client:
            while not self._stopping:
                await self._send_next(client)
                # In bursts, so that there is mostly something on its way.
                await anyio.sleep(self._random.choice((0, 0, 0, _PAUSE)))

    async def _send_next(self, client: httpx2.AsyncClient) -> None:
        self._number += 1
        n = self._number
        self.triggers[n] = self._extra.pop() if self._extra else COUNTED
        if n % _NO_KEY == 0:
            self.unsure.add(n)
            await self._send(client, n, {})
            return
        while n not in self.accepted:
            await self._send(client, n, {"Idempotency-Key": f"number-{n}"})
            if n not in self.accepted:
                await anyio.sleep(_PAUSE)

    async def _send(self, client: httpx2.AsyncClient, n: int, headers: dict[str, str]) -> None:
        try:
            answer = await client.post("/api/v1/events", json=body(self.triggers[n], n), headers=headers)
        except (OSError, httpx2.HTTPError):
            return
        if answer.is_success:
            self.accepted[n] = answer.json()["data"]["id"]
            self.unsure.discard(n)
        else:
            self.refused[answer.status_code] += 1

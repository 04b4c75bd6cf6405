"""How soon a server that was killed while much waited goes on with it, and whether it is as fast as before."""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from attune.base.errors import AttuneError
from attune.base.installation import Installation
from attune.bench.start import started
from attune.bench.surroundings import TRIGGER, bench_packs, temporary_folder

Say = Callable[[str], None]

RULES = 10
"""For each event: so the backlog grows faster than a server works it off, however fast it is."""

_SENDERS = 8
_LOOK_EVERY = 0.05
_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Report:
    """`ready_s`: from the start after the kill until `/health/ready` is green. `first_execution_s`: from then until the
    first execution is known to have ended. The rates are those at which a backlog of at least `waiting` deliveries was
    worked off, without a kill and after one."""

    waiting: int
    ready_s: float
    first_execution_s: float
    normal_per_second: float
    recovered_per_second: float
    ratio: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(waiting: int, say: Say) -> Report:
    """Let so many deliveries wait and be worked off; then once more, with a `kill -9` before."""
    with temporary_folder() as folder:
        place, packs = Installation(folder / "data"), str(bench_packs(folder, RULES))
        with started(place, "--packs", packs) as (process, _):
            say(f"  letting {waiting:,} deliveries wait …")
            _fill(place, waiting)
            normal = _rate(place)
            say(f"  worked off at {normal:,.0f} executions a second; once more …")
            _fill(place, waiting)
            process.kill()
            process.wait()
        with started(place, "--packs", packs) as (_, ready):
            first = _first(place)
            say(f"  ready after {ready:.2f} s, the first execution {first:.2f} s later")
            recovered = _rate(place)
    return Report(
        waiting, round(ready, 3), round(first, 3), round(normal, 1), round(recovered, 1), round(recovered / normal, 3)
    )


def _fill(place: Installation, waiting: int) -> None:
    """Send events over several connections until so many deliveries wait."""
    enough = Event()
    with ThreadPoolExecutor(_SENDERS) as pool:
        sending = [pool.submit(_send, place, enough) for _ in range(_SENDERS)]
        try:
            _until(lambda: _waiting(place) >= waiting or any(one.done() for one in sending))
        finally:
            enough.set()
        for one in sending:
            one.result()


def _send(place: Installation, enough: Event) -> None:
    event = json.dumps({"trigger_ref": TRIGGER, "payload": {}})
    with _connected(place.socket) as connection:
        while not enough.is_set():
            connection.request("POST", "/api/v1/events", event, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != http.client.CREATED:
                raise AttuneError(f"An event was refused with {answer.status}: {said.decode()}")


def _rate(place: Installation) -> float:
    """Executions a second until nothing waits."""
    ended, begun = _ended(place), time.perf_counter()
    _until(lambda: _waiting(place) == 0)
    return (_ended(place) - ended) / (time.perf_counter() - begun)


def _first(place: Installation) -> float:
    """Seconds until an execution has ended."""
    begun = time.perf_counter()
    _until(lambda: _ended(place) > 0)
    return time.perf_counter() - begun


def _until(found: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + _PATIENCE
    while not found():
        if time.perf_counter() > deadline:
            raise AttuneError(f"The server did not get there in {_PATIENCE:g} s.")
        time.sleep(_LOOK_EVERY)


def _waiting(place: Installation) -> int:
    """How many deliveries wait."""
    return int(json.loads(_get(place, "/api/v1/system/status"))["data"]["waiting_deliveries"])


def _ended(place: Installation) -> int:
    """How many executions have ended since the server was started."""
    families = text_string_to_metric_families(_get(place, "/metrics").decode())
    samples = (one for family in families if family.name == "attune_executions_ended" for one in family.samples)
    return int(sum(one.value for one in samples))


def _get(place: Installation, path: str) -> bytes:
    with _connected(place.socket) as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


@contextmanager
def _connected(path: Path) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("localhost", timeout=60)) as connection:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(path))
        yield connection

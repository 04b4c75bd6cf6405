"""How long `attune serve` takes until it is ready, and what it costs when nothing happens."""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attune.base.errors import StartError
from attune.base.installation import Installation
from attune.bench.surroundings import temporary_folder

Say = Callable[[str], None]

_PATIENCE = 60.0
_SETTLE = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Report:
    """Medians, in seconds; the share of one core; the proportional set size of all processes, in MB (10^6 bytes)."""

    empty_directory_s: float
    existing_directory_s: float
    idle_cpu_share: float
    idle_pss_mb: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(starts: int, idle_seconds: float, say: Say) -> Report:
    """Start a server `starts` times on an empty directory and as often on one that exists; then let one idle."""
    empty, existing = [], []
    with temporary_folder() as folder:
        for number in range(starts):
            place = Installation(folder / f"data-{number}")
            with started(place) as (_, seconds):
                empty.append(seconds)
            with started(place) as (_, seconds):
                existing.append(seconds)
            say(f"  ready after {empty[-1]:.2f} s on an empty directory, {existing[-1]:.2f} s on an existing one")
        with started(place) as (process, _):
            say(f"  idling for {idle_seconds:g} s …")
            _let_run(process, place, _SETTLE)
            before = _cpu(process.pid)
            _let_run(process, place, idle_seconds)
            share = (_cpu(process.pid) - before) / idle_seconds
            memory = _pss(process.pid)
    return Report(
        round(statistics.median(empty), 3),
        round(statistics.median(existing), 3),
        round(share, 4),
        round(memory / 1e6, 1),
    )


@contextmanager
def started(place: Installation, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", float]]:
    """A server and the seconds until it was ready. Unless it has ended by then, it is stopped afterwards."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATTUNE_")}
    begun = time.perf_counter()
    with _talk(place).open("wb") as talk:
        process = subprocess.Popen(
            [sys.executable, "-m", "attune", "serve", "--port", "0", "--data-dir", str(place.data), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=talk,
            env=environment,
            cwd=place.data.parent,
            start_new_session=True,
        )
    try:
        while not _is_ready(place.socket):
            _let_run(process, place, 0.005)
            if time.perf_counter() - begun > _PATIENCE:
                process.kill()
                raise StartError(f"The server was not ready after {_PATIENCE:g} s: {_last_words(place)}")
        yield process, time.perf_counter() - begun
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)


def _let_run(process: "subprocess.Popen[bytes]", place: Installation, seconds: float) -> None:
    """Wait; raises StartError when the server ends meanwhile."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    raise StartError(f"The server ended: {_last_words(place)}")


def _talk(place: Installation) -> Path:
    """What a server says goes into a file: nobody reads it while it runs, and a pipe that is full would stop it."""
    return place.data.with_suffix(".talk")


def _last_words(place: Installation) -> str:
    return _talk(place).read_text(errors="replace")[-2000:]


def _is_ready(path: Path) -> bool:
    connection = http.client.HTTPConnection("localhost", timeout=5)
    try:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(path))
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    family = [pid]
    for member in family:
        family.extend(child for child, parent in parents.items() if parent == member)
    return family


def _cpu(pid: int) -> float:
    """Seconds of processor time that a process and its descendants have used."""
    total = 0
    for member in _tree(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def _pss(pid: int) -> int:
    """Bytes of memory of a process and its descendants, shared pages counted in proportion."""
    total = 0
    for member in _tree(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
    return total

"""Reads many streams at once and notes when probes arrive: a process of its own, so that the server has its own time.

`python -m attune.bench.listeners SOCKET PATH…` opens a stream for each path, says `ready`, and when its stdin ends says
how many notifications came, and for each probe its number and when it came.
"""

import re
import selectors
import socket
import sys
import time

PROBE = "bench.probe"
_PROBE = re.compile(rb'"entity_id":(\d+)[^\n]*"ref":"bench\.probe"')
_EVENT = b"\ndata: "
_NOW_AND_THEN = 0.2


def main() -> None:
    file, *paths = sys.argv[1:]
    streams = [_open(file, path) for path in paths]
    print("ready", flush=True)  # noqa: T201 - what it is asked for
    count, came = _listen(streams)
    print(count, *(f"{number}:{at!r}" for number, at in came.items()))  # noqa: T201


def _open(file: str, path: str) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(file)
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = b""
    while b"event: reset" not in answer:
        answer += stream.recv(65_536)
        if b"HTTP/1.1 200" not in answer:
            sys.exit(answer.decode())
    stream.setblocking(False)
    return stream


def _listen(streams: list[socket.socket]) -> tuple[int, dict[int, float]]:
    """Read the last stream, that of the probes, as soon as something comes; the others, whose readers are to stand for
    such that are elsewhere, now and then."""
    *others, probes = streams
    selector = selectors.DefaultSelector()
    selector.register(probes, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    count = 0
    came: dict[int, float] = {}
    due = time.monotonic()
    while True:
        ready = [key.fileobj for key, _ in selector.select(max(due - time.monotonic(), 0))]
        if probes in ready:
            heard = _read(probes)
            came.update(dict.fromkeys(map(int, _PROBE.findall(heard)), time.time()))
            count += heard.count(_EVENT)
        if due <= time.monotonic() or sys.stdin in ready:
            count += sum(_read(stream).count(_EVENT) for stream in others)
            due = time.monotonic() + _NOW_AND_THEN
        if sys.stdin in ready:
            return count, came


def _read(stream: socket.socket) -> bytes:
    """What has come, if anything has."""
    try:
        heard = stream.recv(1_000_000)
    except BlockingIOError:
        return b""
    if not heard:
        sys.exit("The server has ended a stream.")
    return heard


if __name__ == "__main__":
    main()

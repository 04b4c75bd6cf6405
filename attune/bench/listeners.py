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


def main() -> None:
    file, *paths = sys.argv[1:]
    selector = selectors.DefaultSelector()
    for path in paths:
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(file)
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while b"event: reset" not in answer:
            answer += stream.recv(65_536)
            if b"HTTP/1.1 200" not in answer:
                sys.exit(answer.decode())
        selector.register(stream, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)  # noqa: T201 - what it is asked for
    count, came = _listen(selector)
    print(count, *(f"{number}:{at!r}" for number, at in came.items()))  # noqa: T201


def _listen(selector: selectors.BaseSelector) -> tuple[int, dict[int, float]]:
    count = 0
    came: dict[int, float] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return count, came
            assert isinstance(key.fileobj, socket.socket)
            heard = key.fileobj.recv(1_000_000)
            if not heard:
                sys.exit("The server has ended a stream.")
            count += heard.count(b"\ndata: ")
            for number in _PROBE.findall(heard):
                came.setdefault(int(number), time.time())


if __name__ == "__main__":
    main()

"""Asking the server: through its socket file on this machine, or at a URL."""

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from attune.base.installation import Installation, installation
from attune.base.traces import HEADER, VARIABLE, parent_of
from attune.cli.talk import CommandError, Exit

_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is: a data directory on this machine, or a URL with a token from ATTUNE_API_TOKEN. What is
    named here wins over ATTUNE_API_URL."""

    url: str | None = None
    data: Path | None = None


class _SocketFile(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Refused(CommandError):
    """The server said no: with `status`, and a JSON Pointer and a text for everything that is wrong."""

    def __init__(self, status: int, content: bytes) -> None:
        super().__init__(_refusal(status, content), Exit.REFUSED)
        self.status = status
        self.errors = _errors(content)


def is_away(error: CommandError) -> bool:
    """Whether the server, or its database, cannot answer for a while."""
    if isinstance(error, Refused):
        return error.status == http.client.SERVICE_UNAVAILABLE
    return error.exit_code is Exit.UNREACHABLE


class Client:
    """Sends requests and gives the data back; what the server refuses becomes a CommandError."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @property
    def place(self) -> Installation | None:
        """The installation on this machine that is asked; None when a URL is."""
        return None if self._url() else installation(self._target.data)

    def get(self, path: str, **query: Any) -> Any:
        """The `data` of an answer."""
        return self._send("GET", path, query)["data"]

    def find(self, path: str, **query: Any) -> Any:
        """The `data` of an answer; None when there is no such thing."""
        try:
            return self.get(path, **query)
        except Refused as error:
            if error.status == http.client.NOT_FOUND:
                return None
            raise

    def send(
        self, method: str, path: str, body: Any = None, *, idempotency_key: str | None = None, **query: Any
    ) -> Any:
        """The answer to a request that changes something; with a key, the first one again if it was sent before."""
        return self._send(method, path, query, body, idempotency_key)

    def text(self, path: str, **query: Any) -> str:
        """An answer that is no JSON."""
        return self._raw("GET", path, query).decode()

    def content(self, path: str, **query: Any) -> bytes:
        """An answer as it is, byte for byte."""
        return self._raw("GET", path, query)

    def stream(self, path: str, last: str | None, **query: Any) -> Iterator[bytes]:
        """An answer that goes on, piece by piece as it comes; of server-sent events, those after the id `last`."""
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        with self._answer("GET", path, query, headers) as response:
            if response.headers.get_content_type() != "text/event-stream":
                raise _no_attune()
            while piece := response.read1():
                yield piece

    def pages(self, path: str, limit: int, **query: Any) -> Iterator[Any]:
        """Up to `limit` items of a list."""
        after: str | None = None
        while limit > 0:
            size = min(limit, 1000)
            page = self._send("GET", path, {**query, "page_size": size, "after": after})
            yield from page["data"]
            limit -= size
            after = page["pagination"]["next_after"]
            if after is None:
                return

    def count(self, path: str, **query: Any) -> int:
        """How many items a list has."""
        page = self._send("GET", path, {**query, "page_size": 1, "total": "exact"})
        return int(page["pagination"]["total_items"])

    def _send(self, method: str, path: str, query: Mapping[str, Any], body: Any = None, key: str | None = None) -> Any:
        content = self._raw(method, path, query, body, key)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise _no_attune()
        return answer

    def _raw(self, method: str, path: str, query: Mapping[str, Any], body: Any = None, key: str | None = None) -> bytes:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        trace = os.environ.get(VARIABLE, "")
        if method != "GET" and parent_of(trace) is not None:
            headers[HEADER] = trace
        if key is not None:
            if not (key.isascii() and key.isprintable()):
                raise CommandError("An idempotency key has printable ASCII characters only.", Exit.USAGE)
            headers["Idempotency-Key"] = key
        with self._answer(method, path, query, headers, None if body is None else json.dumps(body)) as response:
            return response.read()

    @contextmanager
    def _answer(
        self, method: str, path: str, query: Mapping[str, Any], headers: dict[str, str], content: str | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer to be read in the block."""
        sent = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(sent, errors='surrogateescape')}" if sent else path
        connection, where, prefix = self._connect(headers)
        try:
            connection.request(method, prefix + target, content, headers)
            response = connection.getresponse()
            if response.status >= http.client.BAD_REQUEST:
                raise Refused(response.status, response.read())
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(_unreachable(where, error), Exit.UNREACHABLE) from error
        finally:
            connection.close()

    def _url(self) -> str | None:
        """The URL of the server, unless it is one in a data directory."""
        if self._target.url is None and self._target.data is None:
            return os.environ.get("ATTUNE_API_URL")
        return self._target.url

    def _connect(self, headers: dict[str, str]) -> tuple[http.client.HTTPConnection, str, str]:
        """A connection, a name for it, and what stands in front of all paths."""
        url = self._url()
        if url is None:
            place = installation(self._target.data)
            return _SocketFile(place.socket), f"the data directory {place.data}", ""
        scheme, host, port, prefix = _parts(url)
        token = os.environ.get("ATTUNE_API_TOKEN", "").strip()
        if token:
            if not (token.isascii() and token.isprintable()):
                raise CommandError("ATTUNE_API_TOKEN is no token: it has characters that none has.", Exit.USAGE)
            headers["Authorization"] = f"Bearer {token}"
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=_TIMEOUT), url, prefix


def _parts(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and path of a URL."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme in {"http", "https"} and parts.hostname is not None:
            return parts.scheme, parts.hostname, parts.port, parts.path.rstrip("/")
    except ValueError:
        pass
    raise CommandError(f"{url} is no URL of a server, such as http://127.0.0.1:8080.", Exit.USAGE)


def segment(text: str) -> str:
    """`text` as one segment of a path."""
    return quote(text, safe="", errors="surrogateescape")


def _no_attune() -> CommandError:
    return CommandError("What answers there is no Attune. Check --server and ATTUNE_API_URL.", Exit.UNREACHABLE)


def _unreachable(where: str, error: Exception) -> str:
    return f"No server answers for {where} ({error}). Start one with: attune serve"


def _errors(content: bytes) -> list[tuple[str, str]]:
    try:
        return [(one["pointer"], one["detail"]) for one in json.loads(content).get("errors", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _refusal(status: int, content: bytes) -> str:
    try:
        problem = json.loads(content)
        lines = [problem["detail"], *(f"  {one['pointer']}: {one['detail']}" for one in problem.get("errors", ()))]
        return "\n".join(lines)
    except (ValueError, KeyError, TypeError):
        return f"The server answered {status}."

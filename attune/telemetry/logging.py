"""The log: lines on stderr, for people on a terminal and as JSON elsewhere."""

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO, Any, BinaryIO, Literal, TextIO, cast

import orjson
import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, style: Literal["auto", "pretty", "json"]) -> None:
    """Set up the log of the process, that of the libraries included."""
    pretty = style == "pretty" or (style == "auto" and sys.stderr.isatty())
    processors: list[structlog.typing.Processor]
    factory: Any
    if pretty:
        processors = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            # To us an event is what happened in the world; structlog's name for a line's text is in its way.
            structlog.processors.EventRenamer("message", "_event"),
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=24,
                event_key="message",
                # The others show local variables, and with them parameters and passwords.
                exception_formatter=structlog.dev.plain_traceback,
            ),
        ]
        factory = structlog.PrintLoggerFactory(cast("TextIO", _Tolerant(sys.stderr)))
    else:
        processors = [_as_json]
        factory = structlog.BytesLoggerFactory(cast("BinaryIO", _Tolerant(sys.stderr.buffer)))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    _adopt_libraries(LEVELS[level])


def _as_json(_: Any, method: str, values: MutableMapping[str, Any]) -> bytes:
    """A line: what structlog's own processors would make of it, in one step instead of six. There is one for every
    execution."""
    line = {"timestamp": datetime.now(UTC), "level": method, "message": values.pop("event")}
    if "_event" in values:
        line["event"] = values.pop("_event")
    line.update(structlog.processors.format_exc_info(None, method, values) if "exc_info" in values else values)
    try:
        return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z)
    except TypeError:
        return orjson.dumps({name: _plain(value) for name, value in line.items()}, option=orjson.OPT_UTC_Z)


def _plain(value: Any) -> Any:
    """A value that is no JSON, as text: a line must never fail the one who writes it."""
    if value is None or isinstance(value, datetime | bool | float):
        return value
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text.encode(errors="backslashreplace").decode()


class _Tolerant:
    """A file whose reader may go away, and whose disk may fill, without stopping those who write to it."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def write(self, line: Any) -> None:
        with suppress(OSError, ValueError):
            self._file.write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()


class _Adopted(logging.Handler):
    """Passes what libraries log on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        # structlog knows the whole levels only.
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)
        structlog.get_logger().log(level, _message(record), logger=record.name, exc_info=record.exc_info or None)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # Its arguments do not fit.
        return f"{record.msg} {record.args}"


def _adopt_libraries(level: int) -> None:
    # Libraries tell of every connection at info; that is debug to us.
    logging.basicConfig(handlers=[_Adopted()], level=max(level, logging.WARNING), force=True)
    # The pool logs a traceback for each connection that the database ends; the consumers say what that means.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.ERROR)

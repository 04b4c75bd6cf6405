"""The stages that an event goes through, in the log."""

import logging

import structlog

log = structlog.get_logger()


class Stages:
    """Logs each stage of each event: for everybody to see in the demo, at debug level otherwise.

    At thousands of events a second a line that nobody reads costs more than the work it tells of: whether anybody would
    read it is found out once.
    """

    def __init__(self, *, visible: bool, debug: bool) -> None:
        self._level = logging.INFO if visible else logging.DEBUG
        self.enabled = visible or debug

    def log(self, stage: str, *, event: int | None, **values: object) -> None:
        """Log a `stage` of an event, if anybody would see it, with the values that are not None."""
        if self.enabled:
            told = {"_event": event, **values}
            log.log(self._level, stage, **{name: value for name, value in told.items() if value is not None})

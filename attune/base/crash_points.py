"""Crash points: the moments between two steps at which a test may end this process, as `kill -9` would.

ATTUNE_CRASH_FILE names a file. Once it holds the name of a point, the process kills itself at that point, the next time
that it is reached. Without the variable `reach` does nothing at all.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

STAGES: Final = (
    "ingest",
    "fire",
    "match",
    "enforce",
    "schedule",
    "dispatch",
    "finish",
    "complete",
    "dead_letter",
    "recover",
    "respond",
    "answer",
    "expire",
)
"""What transactions do. Each has the points `before_commit`, `committed` and `handed_over`: what it published is in its
queues."""

CONSUMED: Final = ("match", "enforce", "schedule", "dispatch", "complete", "answer")
"""The stages that begin with deliveries, and have a point `taken` before their transaction."""

POINTS: Final = (
    *(f"{stage}.{moment}" for stage in STAGES for moment in ("before_commit", "committed", "handed_over")),
    *(f"{stage}.taken" for stage in CONSUMED),
    "fire.planned",
    "start.launched",
    "spawn.before",
    "spawn.after",
    "finish.ended",
    "spill.before",
    "spill.after",
    "refill.before",
    "refill.after",
)


def _nowhere(_: str) -> None:
    pass


def _armed(path: Path) -> Callable[[str], None]:
    def reach(point: str) -> None:
        try:
            wanted = path.read_text().strip()
        except FileNotFoundError:
            return
        if wanted == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


reach: Final = _armed(Path(os.environ["ATTUNE_CRASH_FILE"])) if "ATTUNE_CRASH_FILE" in os.environ else _nowhere
"""Say that a point is reached."""

"""The guard: a small process that outlives Attune just long enough to end what Attune was running."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import structlog

log = structlog.get_logger()

_SCRIPT = Path(__file__).with_name("guard.sh")


class Guard:
    """Watches over the children of a boot. It learns of our end by the end of a pipe, even after SIGKILL."""

    def __init__(self, boot: str) -> None:
        """Raises ValueError for what is no whole boot id: with a part of one, it would end processes of others."""
        self._boot = str(UUID(boot))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *, telling: bool = False) -> None:
        """Let the guard watch. Without /proc there is none: there, the next start finds what was left. `telling`:
        somebody asks later for what it ended."""
        if sys.platform == "linux":
            self._process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                _SCRIPT,
                self._boot,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if telling else subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath)},
                start_new_session=True,
            )

    async def dismiss(self) -> list[int]:
        """Let the guard look for what is left, now, and end; the processes that it ended, if it is telling."""
        process, self._process = self._process, None
        if process is None:
            return []
        # Its input ends, and with it its wait.
        told, _ = await process.communicate(b"")
        return sorted({int(line) for line in (told or b"").split()})


async def end_leftovers(boot: str) -> list[int]:
    """End the children of an earlier boot that did not end cleanly itself; their numbers."""
    log.info("Attune did not end cleanly the last time; ending what it left behind", boot=boot)
    try:
        guard = Guard(boot)
    except ValueError:
        log.warning("the earlier boot cannot be told from others, so nothing of it is ended", boot=boot)
        return []
    await guard.start(telling=True)
    return await guard.dismiss()

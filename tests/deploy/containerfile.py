"""A Containerfile, step by step, without a container: what it puts into `/` goes into a folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.server.running import ROOT, environment

_OURS = r"(?<![\w/])/(?=(?:src|opt/attune|data)\b)"
"""The root directory, in the paths that the file makes."""


class Image:
    """The folder that the steps of a file have filled; `variables` and `command` say how it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.variables: dict[str, str] = {}
        self.command: list[str] = []

    def build(self, file: Path) -> None:
        """Follow all steps."""
        for line in re.sub(r"\\\n", " ", file.read_text()).splitlines():
            step, _, rest = line.partition(" ")
            if step and not step.startswith("#"):
                getattr(self, f"_{step.lower()}")(rest)

    def _here(self, text: str) -> str:
        return re.sub(_OURS, f"{self._folder}/", text)

    def _copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        place = Path(self._here(target))
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)

    def _run(self, rest: str) -> None:
        # Users are of the system, and this one stays as it is.
        if rest.startswith("useradd "):
            return
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        script = re.sub(r"&& chown .*", "", self._here(rest))
        done = subprocess.run(
            ["sh", "-ec", script],
            check=False,
            capture_output=True,
            text=True,
            env=environment(PATH=path, PYTHONPATH=""),
        )
        assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"

    def _env(self, rest: str) -> None:
        self.variables |= dict(word.split("=", 1) for word in shlex.split(self._here(rest)))

    def _entrypoint(self, rest: str) -> None:
        self.command = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.command += json.loads(rest)

    def _nothing(self, rest: str) -> None:
        """What only a container engine can do."""

    _from = _user = _volume = _expose = _nothing

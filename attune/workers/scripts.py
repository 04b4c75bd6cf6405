"""Actions that are scripts: from an action and its parameters to a command, and from what came of it to a result."""

import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from attune import sdk
from attune.base.clock import Clock
from attune.base.json import JsonObject, dumps
from attune.bus.messages import ExecutionDispatched
from attune.catalog.model import Action, OutputFormat, Pack, Runtime
from attune.workers import processes, results
from attune.workers.environment import MARKS, Surroundings, environment
from attune.workers.logs import Logs
from attune.workers.output import Output
from attune.workers.processes import Command, Stop
from attune.workers.results import MAX_DATA, Ended, Printed

_LAST_LINES = 5
_START = Path(sdk.__file__).with_name("__main__.py")
_MUCH = 20_000


@dataclass(frozen=True, slots=True)
class Scripts:
    """Runs scripts. `log_limit`: bytes that each stream may write; `grace`: seconds between SIGTERM and SIGKILL."""

    surroundings: Surroundings
    logs: Logs
    clock: Clock
    log_limit: int
    grace: float

    async def execute(
        self,
        dispatched: ExecutionDispatched,
        trace: str,
        parameters: JsonObject,
        action: Action,
        pack: Pack,
        *,
        timeout: float,
        stop: Stop,
    ) -> Ended:
        """Run the script of an action to its end; `trace` names its execution and the chain."""
        script = script_path(action, pack)
        assert script is not None, "a coroutine has no script"
        if not script.is_file():
            return results.failure(f"The script {script} of {action.ref} is missing.")
        variables = environment(dispatched, trace, self.surroundings)
        command = Command(
            arguments=[*interpreter(Runtime(action.runtime_ref)), str(script)],
            environment=variables,
            directory=Path(pack.storage_path),
            stdin=dumps(parameters).encode() + b"\n",
            marks={name: variables[name] for name in MARKS},
        )
        started = self.clock.monotonic()
        with (
            Output(self.logs.path(dispatched.execution_id, "stdout"), limit=self.log_limit, head=MAX_DATA) as stdout,
            Output(self.logs.path(dispatched.execution_id, "stderr"), limit=self.log_limit, head=0) as stderr,
        ):
            try:
                ended = await processes.run(
                    command, stdout=stdout.write, stderr=stderr.write, timeout=timeout, grace=self.grace, stop=stop
                )
            except OSError as error:
                return results.failure(f"{command.arguments[0]} cannot be started for {script}: {error.strerror}.")
        printed = Printed(
            stdout.head,
            stdout.total,
            stderr.total,
            stderr.last_lines(_LAST_LINES),
            stdout.last_lines(_LAST_LINES),
            self.log_limit,
            stdout.failure or stderr.failure,
        )
        duration_ms = round((self.clock.monotonic() - started) * 1000)
        output_format = OutputFormat(action.output_format)
        conclude = partial(results.of_process, ended, printed, output_format, duration_ms, timeout)
        # Reading much of it, or YAML, takes its time; the loop has others to serve.
        is_slow = output_format is OutputFormat.YAML or (
            output_format is not OutputFormat.TEXT and stdout.total > _MUCH
        )
        return await anyio.to_thread.run_sync(conclude) if is_slow else conclude()


def script_path(action: Action, pack: Pack) -> Path | None:
    """Where the script of an action lies; None for a coroutine."""
    return None if action.runtime_ref == Runtime.BUILTIN else Path(pack.storage_path) / "actions" / action.entrypoint


def interpreter(runtime: Runtime) -> list[str]:
    """The command that runs a script of a runtime; empty for one that runs itself."""
    if runtime is Runtime.PYTHON:
        return [sys.executable, "-u", str(_START)]
    if runtime is Runtime.NATIVE:
        return []
    return [shutil.which("bash") or "/bin/sh"]

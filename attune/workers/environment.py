"""The environment of a child process: exactly this, nothing that Attune happened to be started with."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attune.base.refs import pack_of
from attune.base.traces import VARIABLE
from attune.bus.messages import ExecutionDispatched

MARKS = ("ATTUNE_BOOT_ID", "ATTUNE_EXEC_ID")
"""The variables that tell the processes of an execution from all others."""

_INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is the same for all executions of a boot."""

    boot: str
    api_url: str
    artifacts_directory: Path
    environments_directory: Path
    pass_env: tuple[str, ...]


def environment(
    dispatched: ExecutionDispatched, trace: str, surroundings: Surroundings, own: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables for the process of an execution; `trace` names it and its chain, `own` are those of Attune."""
    variables = {name: own[name] for name in (*_INHERITED, *surroundings.pass_env) if name in own}
    variables |= {
        "ATTUNE_BOOT_ID": surroundings.boot,
        "ATTUNE_EXEC_ID": str(dispatched.execution_id),
        "ATTUNE_ACTION": dispatched.action_ref,
        "ATTUNE_PACK_REF": pack_of(dispatched.action_ref),
        "ATTUNE_API_URL": surroundings.api_url,
        "ATTUNE_ARTIFACTS_DIR": str(surroundings.artifacts_directory),
        "ATTUNE_RUNTIME_ENVS_DIR": str(surroundings.environments_directory),
        "ATTUNE_PARAMETER_DELIVERY": "stdin",
        "ATTUNE_PARAMETER_FORMAT": "json",
        VARIABLE: trace,
    }
    if dispatched.rule_ref is not None:
        variables["ATTUNE_RULE"] = dispatched.rule_ref
    if dispatched.trigger_ref is not None:
        variables["ATTUNE_TRIGGER"] = dispatched.trigger_ref
    return variables

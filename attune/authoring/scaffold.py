"""A pack to begin with: an action, a rule on a schedule, and a test."""

from pathlib import Path

from attune.base import refs
from attune.base.errors import BadInput, Conflict

_FILES = {
    "pack.yaml": """\
ref: {ref}
label: {label}
version: 0.1.0
""",
    "actions/greet.yaml": """\
ref: {ref}.greet
label: Greet
description: Greets somebody.
entry_point: greet.py
runner_type: python
output_format: json
parameters:
  name: {{type: string, required: true, description: Who is greeted.}}
  times: {{type: integer, default: 1, minimum: 1, description: How often.}}
""",
    "actions/greet.py": '''\
from attune import action, log


@action
def main(name: str, times: int = 1) -> dict:
    """What is returned here is the result of the execution."""
    log("greeting", name)
    return {{"greetings": [f"Hello, {{name}}!"] * times}}
''',
    "rules/greet_often.yaml": """\
ref: {ref}.greet_often
label: Greet the world every ten seconds
trigger_ref: core.crontimer
trigger_params:
  # Second, minute, hour, day, month, weekday. Every morning at half past seven: 0 30 7 * * *
  expression: "*/10 * * * * *"
  timezone: {zone}
action_ref: {ref}.greet
action_params:
  name: world, it is {{{{ event.payload.scheduled_at }}}}
""",
    "tests/greet_often.yaml": """\
rule: greet_often
cases:
  - name: the world is greeted, and told the time
    payload: {{scheduled_at: "2030-01-31T07:30:00Z"}}
    action: greet
    parameters: {{name: "world, it is 2030-01-31T07:30:00Z"}}
""",
}


def make_pack(ref: str, parent: Path, zone: str) -> list[Path]:
    """Make the folder of a new pack, whose rule is in a time zone; the files that are in it.

    Raises BadInput for a name that cannot be one, and Conflict when there is something already.
    """
    if not refs.is_pack_ref(ref):
        raise BadInput(f"{ref!r} cannot be the name of a pack: it must be {refs.PACK_SHAPE}.")
    directory = parent / ref
    values = {"ref": ref, "label": ref.replace("_", " ").replace("-", " ").capitalize(), "zone": zone}
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise Conflict(f"There is something in {directory} already. Choose another name, or another --dir.")
        for name, content in _FILES.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.format_map(values))
    except OSError as error:
        raise BadInput(f"{directory} cannot be made: {error.strerror}.") from error
    return [directory / name for name in _FILES]

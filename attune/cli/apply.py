"""`attune apply`: let the rules of the server be what files say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attune.cli.client import Refused, segment
from attune.cli.common import Context, Format
from attune.cli.talk import CommandError, Exit, say

if TYPE_CHECKING:
    from attune.base.errors import Problem
    from attune.catalog.formats import RuleFile
    from attune.catalog.yamls import YamlFile

_COMPARED = (
    "label",
    "description",
    "overlap",
    "trigger_ref",
    "trigger_params",
    "conditions",
    "action_ref",
    "action_params",
)


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a rule. `changes`: before and after, by field."""

    ref: str
    action: str
    changes: dict[str, tuple[Any, Any]]


def apply(
    context: Context,
    path: Annotated[Path, typer.Argument(help="A rule file, a folder of rule files, or a pack folder.", exists=True)],
    diff: Annotated[bool, typer.Option("--diff", help="Only show what would be done.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete rules of the same pack that people made and no file names.")
    ] = False,
) -> None:
    """Let the rules of the server be what files say: create those that are missing, change those that differ."""
    if prune and path.is_file():
        raise CommandError("--prune needs a folder: a file does not say which others there are.", Exit.USAGE)
    pack_ref, files = _read(path)
    steps: list[Step] = []
    refused = False
    for file in files:
        try:
            steps.append(_apply(context, file, diff=diff))
        except Refused as error:
            refused = True
            say(_located(file, error))
    if prune:
        packs = {pack_ref} if pack_ref else {file.content.ref.partition(".")[0] for file in files}
        steps += _prune(context, packs, {file.content.ref for file in files}, diff=diff)
    _show(context, steps, diff=diff)
    if refused:
        raise CommandError("Not all of it could be applied.", Exit.REFUSED)


def _read(path: Path) -> tuple[str | None, list["YamlFile[RuleFile]"]]:
    """The pack of the files, if they are in one, and the rules. Raises YamlError with all that is wrong with any."""
    from attune.catalog.files import read_rule, yaml_files
    from attune.catalog.formats import PackFile
    from attune.catalog.yamls import YamlError, YamlFile

    folder = path.absolute() if path.is_dir() else path.absolute().parent
    manifest = next((one / "pack.yaml" for one in (folder, folder.parent) if (one / "pack.yaml").is_file()), None)
    pack_ref = YamlFile(manifest, PackFile).content.ref if manifest else None
    found = yaml_files(folder / "rules" if manifest and manifest.parent == folder else folder)
    files: list[YamlFile[RuleFile]] = []
    problems: list[Problem] = []
    for one in found if path.is_dir() else [path]:
        try:
            files.append(read_rule(one, pack_ref))
        except YamlError as error:
            problems.extend(error.problems)
    if problems:
        raise YamlError("Nothing was done.", problems)
    return pack_ref, files


def _apply(context: Context, file: "YamlFile[RuleFile]", *, diff: bool) -> Step:
    rule = file.content
    wanted = {name: getattr(rule, name) for name in _COMPARED}
    if "enabled" in rule.model_fields_set:
        wanted["enabled"] = rule.enabled
    before = _find(context, rule.ref)
    if before is None:
        body = {"enabled": rule.enabled, **wanted, "ref": rule.ref, "pack_ref": rule.ref.partition(".")[0]}
        _send(context, "POST", "/api/v1/rules", body, diff=diff)
        return Step(rule.ref, "created", {})
    changes = {name: (before[name], value) for name, value in wanted.items() if not _same(before[name], value)}
    if not changes:
        return Step(rule.ref, "unchanged", {})
    body = {name: value for name, (_, value) in changes.items()}
    _send(context, "PUT", f"/api/v1/rules/{segment(rule.ref)}", body, diff=diff)
    return Step(rule.ref, "updated", changes)


def _find(context: Context, ref: str) -> dict[str, Any] | None:
    """A rule as it is, with the secrets that an ordinary answer masks."""
    from attune.catalog.files import read_rule

    path = f"/api/v1/rules/{segment(ref)}"
    try:
        shown: dict[str, Any] = context.client.get(path)
        source = context.client.content(f"{path}/source")
    except Refused as error:
        if error.status == 404:
            return None
        raise
    pack_ref, _, name = ref.partition(".")
    written = read_rule(Path(f"{name}.yaml"), pack_ref, source).content
    return shown | {name: getattr(written, name) for name in _COMPARED}


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; to Python 1, 1.0 and true are."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _prune(context: Context, packs: set[str], kept: set[str], *, diff: bool) -> list[Step]:
    gone = [
        rule["ref"]
        for pack_ref in sorted(packs)
        for rule in context.client.pages(f"/api/v1/packs/{segment(pack_ref)}/rules", 100_000)
        if rule["ref"] not in kept and rule["is_adhoc"]
    ]
    if gone and not diff:
        context.confirm(f"Delete {', '.join(gone)}?")
    for ref in gone:
        _send(context, "DELETE", f"/api/v1/rules/{segment(ref)}", None, diff=diff)
    return [Step(ref, "deleted", {}) for ref in gone]


def _send(context: Context, method: str, path: str, body: Any, *, diff: bool) -> None:
    if diff:
        return
    answer = context.client.send(method, path, body)
    for warning in answer.get("data", {}).get("warnings", ()):
        say(f"warning: {warning}")


def _located(file: "YamlFile[RuleFile]", error: Refused) -> str:
    """What the server said, with the lines of the file that it is about."""
    lines = [f"{file.content.ref} is refused: {error.message.partition(chr(10))[0]}"]
    return "\n".join([*lines, *(f"  {file.problem(*one)}" for one in error.errors)])


def _show(context: Context, steps: list[Step], *, diff: bool) -> None:
    if context.format is not Format.TABLE:
        rows = [
            {
                "ref": step.ref,
                "action": step.action,
                "changes": {name: {"before": old, "after": new} for name, (old, new) in step.changes.items()},
            }
            for step in steps
        ]
        context.rows(rows, ["ref", "action"])
        return
    for step in steps:
        verb = f"would be {step.action}" if diff and step.action != "unchanged" else step.action
        print(f"{step.ref}  {verb}")  # noqa: T201 - data
        for name, (old, new) in step.changes.items():
            print(f"    {name}: {_text(old)} -> {_text(new)}")  # noqa: T201 - data


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

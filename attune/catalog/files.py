"""Packs as folders: `pack.yaml`, `triggers/*.yaml`, `actions/*.yaml`, `rules/*.yaml`. Hidden files are none of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from attune.base import refs
from attune.base.errors import Problem
from attune.catalog.formats import ActionFile, PackFile, RuleFile, TriggerFile, full_ref, label_of
from attune.catalog.sources import Source, checksum_of, read_sources
from attune.catalog.yamls import FileProblem, YamlError, YamlFile

Component = TypeVar("Component", TriggerFile, ActionFile, RuleFile)

FOLDERS = ("triggers", "actions", "rules")

# What packs of the platform may hold besides. To leave it out without a word would be half a pack.
_UNKNOWN_FOLDERS = ("permission_sets", "runtimes", "queues", "sensors", "policies", "workflows", "actions/workflows")


@dataclass(frozen=True, slots=True)
class PackFolder:
    """A pack as its folder has it. All refs are full, and what may be left out of a file is filled in."""

    directory: Path
    checksum: str
    pack: PackFile
    triggers: tuple[TriggerFile, ...]
    actions: tuple[ActionFile, ...]
    rules: tuple[YamlFile[RuleFile], ...]
    sources: tuple[Source, ...]
    described: dict[str, str]
    """The refs of what files describe, by their paths below the folder."""


def checksum(directory: Path) -> str:
    """A checksum of the files of a pack."""
    return checksum_of(read_sources(directory))


def read_pack(directory: Path, sources: Sequence[Source] | None = None) -> PackFolder:
    """The pack of a folder, wholly or not at all. Raises YamlError with every problem of all its files."""
    sources = read_sources(directory) if sources is None else sources
    texts = {source.path: source.content for source in sources}
    pack = _manifest(directory, texts)
    ref = pack.content.ref
    problems: list[Problem] = [*_located(pack), *_unknown_folders(directory)]
    triggers = _components(directory, "triggers", TriggerFile, ref, texts, problems)
    actions = _components(directory, "actions", ActionFile, ref, texts, problems)
    rules = _components(directory, "rules", RuleFile, ref, texts, problems)
    for action in actions:
        problems.extend(action.problem(*problem) for problem in _script_problems(action, ref))
    if problems:
        raise YamlError(f"The pack in {directory} is not loaded.", problems)
    return PackFolder(
        directory,
        checksum_of(sources),
        pack.content,
        tuple(file.content for file in triggers),
        tuple(file.content for file in actions),
        tuple(rules),
        tuple(sources),
        dict(chain(_described(directory, triggers), _described(directory, actions), _described(directory, rules))),
    )


def read_rule(path: Path, pack_ref: str | None = None, text: bytes | None = None) -> YamlFile[RuleFile]:
    """The rule of a file, of that pack or, outside of any, of the one that its ref names."""
    file = YamlFile(path, RuleFile, text)
    if pack_ref is None and not refs.is_component_ref(file.content.ref):
        problem = file.problem("/ref", f"outside of a pack a rule must say its pack: {refs.COMPONENT_SHAPE}")
        raise YamlError(f"{path} is wrong.", [problem])
    pack_ref = pack_ref or refs.pack_of(file.content.ref)
    _name(file, pack_ref)
    problems = list(_ref_problems(file, pack_ref))
    if problems:
        raise YamlError(f"{path} is wrong.", problems)
    return file


def yaml_files(folder: Path) -> list[Path]:
    """The YAML files of a folder, whether or not they end as they should."""
    return sorted(path for suffix in ("yaml", "yml") for path in folder.glob(f"[!.]*.{suffix}"))


def _manifest(directory: Path, texts: Mapping[str, bytes | None]) -> YamlFile[PackFile]:
    path = directory / "pack.yaml"
    if not path.exists():
        what = "there is no such file: make one that says `ref: name`"
        raise YamlError(f"The pack in {directory} is not loaded.", [FileProblem.at(path, 1, "", what)])
    pack = YamlFile(path, PackFile, texts.get("pack.yaml"))
    if not pack.content.label:
        pack.content = pack.content.model_copy(update={"label": label_of(pack.content.ref)})
    return pack


def _located(file: YamlFile[Any]) -> Iterator[Problem]:
    return (file.problem(problem.where, problem.what) for problem in file.content.problems())


def _unknown_folders(directory: Path) -> Iterator[Problem]:
    for name in _UNKNOWN_FOLDERS:
        if yaml_files(directory / name):
            what = f"this release of Attune knows no {name.rpartition('/')[2]}"
            yield FileProblem(str(directory / name), what, directory / name, 1, "", what)


def _components(
    directory: Path,
    name: str,
    model: type[Component],
    pack_ref: str,
    texts: Mapping[str, bytes | None],
    problems: list[Problem],
) -> list[YamlFile[Component]]:
    components: dict[str, YamlFile[Component]] = {}
    for path in yaml_files(directory / name):
        if path.suffix != ".yaml":
            what = f"rename it to {path.stem}.yaml: only such files are read"
            problems.append(FileProblem(str(path), what, path, 1, "", what))
            continue
        try:
            file: YamlFile[Component] = YamlFile(path, model, texts.get(f"{name}/{path.name}"))
        except YamlError as error:
            problems.extend(error.problems)
            continue
        _name(file, pack_ref)
        problems.extend([*_located(file), *_ref_problems(file, pack_ref)])
        ref = file.content.ref
        if ref in components:
            problems.append(file.problem("/ref", f"{ref!r} stands in {components[ref].path} too"))
        components.setdefault(ref, file)
    return list(components.values())


def _described(directory: Path, components: Sequence[YamlFile[Component]]) -> Iterator[tuple[str, str]]:
    return ((file.path.relative_to(directory).as_posix(), file.content.ref) for file in components)


def _name(file: YamlFile[Component], pack_ref: str) -> None:
    """Fill in what may be left out: ref and label, the pack in refs, and the runner of an action."""
    content = file.content
    ref = full_ref(content.ref or file.path.stem, pack_ref)
    changes: dict[str, str] = {"ref": ref, "label": content.label or label_of(ref)}
    match content:
        case RuleFile():
            changes["trigger_ref"] = full_ref(content.trigger_ref, pack_ref)
            changes["action_ref"] = full_ref(content.action_ref, pack_ref)
        case ActionFile():
            runner = content.runner_type or _runner(file.path.parent / content.entry_point)
            changes["runner_type"] = {"bash": "shell", "sh": "shell", "python3": "python"}.get(runner, runner)
        case _:
            pass
    file.content = content.model_copy(update=changes)


def _ref_problems(file: YamlFile[Component], pack_ref: str) -> Iterator[Problem]:
    ref = file.content.ref
    if not refs.is_component_ref(ref) or refs.pack_of(ref) != pack_ref:
        yield file.problem("/ref", f"{ref!r} must be {pack_ref}.name ({refs.COMPONENT_SHAPE})")


def _runner(script: Path) -> str:
    """What runs a script whose file does not say: `unknown` if nothing tells."""
    by_suffix = {".py": "python", ".sh": "shell", ".bash": "shell"}.get(script.suffix)
    if by_suffix:
        return by_suffix
    try:
        if script.is_file() and os.access(script, os.X_OK):
            return "native"
    except OSError:
        pass
    return "unknown" if script.suffix else "shell"


def _script_problems(file: YamlFile[ActionFile], pack_ref: str) -> Iterator[tuple[str, str]]:
    action = file.content
    if action.runner_type == "builtin":
        if pack_ref != "core":
            yield "/runner_type", "builtin is for the core pack; use shell or python"
        return
    folder = file.path.parent.resolve()
    try:
        script = (folder / action.entry_point).resolve()
        is_there = script.is_file()
    except OSError as error:
        yield "/entry_point", f"{action.entry_point!r} cannot be looked at: {error.strerror}"
        return
    if not script.is_relative_to(folder):
        yield "/entry_point", f"{action.entry_point!r} leaves the folder {folder}"
    elif not is_there:
        yield "/entry_point", f"there is no file {script}"
    else:
        yield from _runner_problems(action.runner_type, script)


def _runner_problems(runner: str | None, script: Path) -> Iterator[tuple[str, str]]:
    if runner == "unknown":
        yield "/entry_point", f"nothing says what runs it: add runner_type, or make it executable: chmod +x {script}"
    elif runner == "native" and not os.access(script, os.X_OK):
        yield "/runner_type", f"native needs a file that can be run: chmod +x {script}"

"""The packs that a person works on, and those that they can name: the bundled ones, and those beside them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from attune.base.errors import BadInput, NotFound, Problem
from attune.catalog.files import PackFolder, read_pack
from attune.catalog.formats import ActionFile, RuleFile, TriggerFile
from attune.catalog.model import Action, Rule, Trigger
from attune.catalog.queries import RuleSpec

_BUNDLED = Path(__file__).resolve().parents[1] / "bundled"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_MANIFEST = "pack.yaml"


@dataclass(frozen=True, slots=True)
class Library:
    """Packs, and what they define by ref. `problems`: what is wrong with those that cannot be read."""

    packs: dict[Path, PackFolder] = field(default_factory=dict)
    problems: dict[Path, tuple[Problem, ...]] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)

    def read(self, directory: Path) -> None:
        """Add the pack of a folder, or what is wrong with it."""
        try:
            self.add(read_pack(directory))
        except BadInput as error:
            self.problems[directory] = error.problems

    def add(self, *packs: PackFolder) -> None:
        """Add packs."""
        for pack in packs:
            self.packs[pack.directory] = pack
            self.triggers.update((file.ref, _trigger(file, pack)) for file in pack.triggers)
            self.actions.update((file.ref, _action(file, pack)) for file in pack.actions)


def find_packs(path: Path) -> list[Path]:
    """The folders of the packs at a place: the pack there, else those in it, else the one around it.

    Raises NotFound when there are none.
    """
    here = path.resolve()
    if not here.exists():
        raise NotFound(f"There is no {path}.")
    if (here / _MANIFEST).is_file():
        return [here]
    around = [parent for parent in here.parents if (parent / _MANIFEST).is_file()]
    found = list(_packs_in([here])) or around[:1]
    if not found:
        raise NotFound(f"There is no pack in {here}. A pack is a folder with a {_MANIFEST}; attune pack new makes one.")
    return found


def library_of(directories: Sequence[Path]) -> Library:
    """These packs, the bundled ones, and all that lie beside them."""
    library = Library()
    library.add(*_bundled())
    for directory in dict.fromkeys([*_packs_in(one.parent for one in directories), *directories]):
        if directory not in library.packs:
            library.read(directory)
    return library


@cache
def _bundled() -> tuple[PackFolder, ...]:
    return tuple(map(read_pack, _packs_in([_BUNDLED])))


def spec_of(file: RuleFile, pack_ref: str) -> RuleSpec:
    """The rule that a file asks for."""
    values = {one.name: getattr(file, one.name) for one in fields(RuleSpec) if one.name != "pack_ref"}
    return RuleSpec(pack_ref=pack_ref, **values)


def rule_of(spec: RuleSpec) -> Rule:
    """A rule as the server would have it, switched on."""
    values = {one.name: getattr(spec, one.name) for one in fields(RuleSpec)}
    return Rule(
        **{**values, "enabled": True},
        id=1,
        pack=1,
        action=1,
        trigger=1,
        is_adhoc=False,
        owner_identity=None,
        created=_NEVER,
        updated=_NEVER,
    )


def _packs_in(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(manifest.parent for manifest in folder.glob(f"*/{_MANIFEST}"))


def _trigger(file: TriggerFile, pack: PackFolder) -> Trigger:
    return Trigger(
        id=1,
        ref=file.ref,
        label=file.label,
        description=file.description,
        created=_NEVER,
        updated=_NEVER,
        pack=1,
        pack_ref=pack.pack.ref,
        enabled=file.enabled,
        param_schema=file.parameters,
        out_schema=file.output,
    )


def _action(file: ActionFile, pack: PackFolder) -> Action:
    return Action(
        id=1,
        ref=file.ref,
        label=file.label,
        description=file.description,
        created=_NEVER,
        updated=_NEVER,
        pack=1,
        pack_ref=pack.pack.ref,
        entrypoint=file.entry_point,
        runtime_ref=file.runtime,
        param_schema=file.parameters,
        out_schema=file.output,
        output_format=file.output_format,
        timeout_seconds=file.timeout,
        max_retries=file.max_retries,
        retry_delay=file.retry_delay,
        retry_backoff=file.retry_backoff,
        retry_jitter=file.retry_jitter,
        retry_on=[*file.retry_on],
    )

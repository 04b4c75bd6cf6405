"""Everything that is wrong with packs, before a server sees them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path

from attune.authoring.contradictions import contradiction
from attune.authoring.fields import unknown_fields
from attune.authoring.library import Library, library_of, spec_of
from attune.authoring.scripts import script_problems
from attune.base.errors import Problem
from attune.base.expressions import problems as template_problems
from attune.base.refs import pack_of
from attune.catalog.files import PackFolder
from attune.catalog.model import Action, Trigger
from attune.catalog.queries import RuleSpec
from attune.catalog.rules import schema_problems
from attune.rules import evaluation
from attune.rules.conditions import condition_problems
from attune.sources.timers.params import TRIGGERS, from_params
from attune.sources.timers.rules import TimerRules


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong with a pack. The `where` of each problem is `file:line`."""

    directory: Path
    problems: tuple[Problem, ...]


def check(directories: Sequence[Path], now: datetime) -> list[Report]:
    """A report on each pack. What a rule names may come from any of them, from a pack beside them, or a bundled one."""
    library = library_of(directories)
    return [Report(directory, tuple(_pack_problems(directory, library, now))) for directory in directories]


def _pack_problems(directory: Path, library: Library, now: datetime) -> Iterable[Problem]:
    pack = library.packs.get(directory)
    if pack is None:
        return library.problems[directory]
    return [*_action_problems(pack), *_rule_problems(pack, library, now)]


def _action_problems(pack: PackFolder) -> Iterator[Problem]:
    for action in pack.actions:
        if action.runner_type != "builtin":
            yield from script_problems(pack.directory / "actions" / action.entry_point, action.runner_type or "shell")


def _rule_problems(pack: PackFolder, library: Library, now: datetime) -> Iterator[Problem]:
    for file in pack.rules:
        for problem in _Rule(spec_of(file.content, pack.pack.ref), pack, library, now).problems():
            yield file.problem(problem.where, problem.what)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule that is checked, as the server would do it and further."""

    spec: RuleSpec
    pack: PackFolder
    library: Library
    now: datetime

    def problems(self) -> Iterator[Problem]:
        """All that is wrong, as JSON Pointers into the rule."""
        trigger = self.library.triggers.get(self.spec.trigger_ref)
        action = self.library.actions.get(self.spec.action_ref)
        if trigger is None:
            yield Problem("/trigger_ref", self._unknown("trigger", self.spec.trigger_ref, self.library.triggers))
        if action is None:
            yield Problem("/action_ref", self._unknown("action", self.spec.action_ref, self.library.actions))
        templates = template_problems(self.spec.action_params, "/action_params")
        own = [*schema_problems(self.spec, trigger, action)] if trigger and action else templates
        yield from own
        yield from self._condition_problems(trigger, are_templates_right=not templates)
        if not any(problem.where.startswith("/trigger_params") for problem in own):
            yield from self._schedule_problems()

    def _unknown(self, kind: str, ref: str, known: Mapping[str, Trigger | Action]) -> str:
        for directory in self.library.problems:
            if directory.name == pack_of(ref):
                return f"there is no {kind} {ref}, because the pack in {directory} is broken"
        close = get_close_matches(ref, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
        return f"there is no {kind} {ref}; {hint}"

    def _condition_problems(self, trigger: Trigger | None, *, are_templates_right: bool) -> Iterator[Problem]:
        if not are_templates_right:
            yield from condition_problems(self.spec.conditions, "/conditions")
            return
        wrong = [*evaluation.problems(self.spec)]
        yield from wrong
        if wrong or trigger is None:
            return
        yield from unknown_fields(self.spec, trigger, self.pack.pack)
        never = contradiction(self.spec.conditions, "/conditions")
        if never is not None:
            yield Problem(never.where, f"the rule can never fire: {never.what}")

    def _schedule_problems(self) -> Iterator[Problem]:
        wrong = [*TimerRules().problems(self.spec)]
        yield from wrong
        if self.spec.trigger_ref not in TRIGGERS or wrong or not self.spec.enabled:
            return
        if from_params(self.spec.trigger_ref, self.spec.trigger_params, self.now).after(self.now) is None:
            what = f"the rule can never fire: its schedule has no moment after {self.now:%Y-%m-%d %H:%M} UTC"
            yield Problem("/trigger_params", what)

"""Running the tests of a pack: by the code that matches events, without a server."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from uuid import UUID

from attune.authoring.cases import Case, CaseFile
from attune.authoring.library import Library, library_of, rule_of, spec_of
from attune.base.errors import BadInput, Problem
from attune.base.json import Json, JsonObject, dumps
from attune.base.schema import validate, with_defaults
from attune.base.verdicts import Clause
from attune.catalog.files import PackFolder
from attune.catalog.model import Rule
from attune.catalog.yamls import YamlError, YamlFile
from attune.events.model import Event
from attune.rules.evaluation import Decision, Verdict, concerned, judge

_NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as expected; both sides as people read them."""

    what: str
    expected: str
    actual: str


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a case. It passed if there are no differences."""

    name: str
    where: str
    rule: str
    verdict: Verdict | None
    differences: tuple[Difference, ...]


def run_tests(directory: Path) -> list[Trial]:
    """Run all cases of a pack. Raises BadInput when the pack, or a file of its tests, cannot be read."""
    library = library_of([directory])
    pack = library.packs.get(directory)
    if pack is None:
        raise BadInput(f"The pack in {directory} is not loaded.", library.problems[directory])
    files, problems = _case_files(directory)
    trials: list[Trial] = []
    for file in files:
        for index, case in enumerate(file.content.cases):
            ref = _full(case.rule or file.content.rule or "", pack)
            rule = next((one.content for one in pack.rules if one.content.ref == ref), None)
            if rule is None:
                key = f"/cases/{index}/rule" if case.rule else "/rule"
                problems.append(file.problem(key, _no_rule(ref, pack)))
                continue
            where = file.problem(f"/cases/{index}/name", "").where
            trials.append(_Trying(case, rule_of(spec_of(rule, pack.pack.ref)), pack, library).trial(where))
    if problems:
        raise YamlError(f"The tests in {directory / 'tests'} cannot be run.", list(dict.fromkeys(problems)))
    return trials


def _case_files(directory: Path) -> tuple[list[YamlFile[CaseFile]], list[Problem]]:
    """The files whose cases can be tried, and what is wrong with the others."""
    files: list[YamlFile[CaseFile]] = []
    problems: list[Problem] = []
    for path in sorted((directory / "tests").glob("[!.]*.yaml")):
        try:
            file = YamlFile(path, CaseFile)
        except YamlError as error:
            problems.extend(error.problems)
            continue
        wrong = [file.problem(one.where, one.what) for one in file.content.problems()]
        problems.extend(wrong)
        if not wrong:
            files.append(file)
    return files, problems


def _full(ref: str, pack: PackFolder) -> str:
    return ref if "." in ref else f"{pack.pack.ref}.{ref}"


def _no_rule(ref: str, pack: PackFolder) -> str:
    known = [file.content.ref for file in pack.rules]
    close = get_close_matches(ref, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the pack has {', '.join(known) or 'none'}"
    return f"there is no rule {ref}; {hint}"


@dataclass(frozen=True, slots=True)
class _Trying:
    """One case, being tried. Whether the rule is enabled does not matter: it is about what it would do."""

    case: Case
    rule: Rule
    pack: PackFolder
    library: Library

    def trial(self, where: str) -> Trial:
        """What becomes of the case."""
        event = self._event()
        verdict = None
        differences: list[Difference] = []
        if concerned(event, self.rule):
            config: JsonObject = {**self.pack.pack.config, **self.case.config}
            verdict = judge(self.rule, event, config, self.case.now or _NOW)
            differences = [*self._payload_differences(event), *self._differences(verdict)]
        elif self.case.matches:
            differences = [Difference("matches", "yes", f"no: it is for {self.rule.trigger_ref}")]
        return Trial(self.case.name, where, self.rule.ref, verdict, tuple(differences))

    def _event(self) -> Event:
        given = self.case.event
        trigger = self.case.trigger if given is None else given.trigger_ref
        payload = self.case.payload if given is None else given.payload
        created = None if given is None else given.created
        return Event(
            id=1 if given is None else given.id,
            trigger=1,
            trigger_ref=self.rule.trigger_ref if trigger is None else _full(trigger, self.pack),
            config=None,
            payload={} if payload is None else payload,
            source_ref="test",
            rule=None,
            rule_ref=None,
            correlation_id=UUID(int=0),
            causation_id=None,
            depth=0,
            created=(created or self.case.now or _NOW).astimezone(UTC),
        )

    def _payload_differences(self, event: Event) -> Iterator[Difference]:
        """An event that the trigger would refuse proves nothing."""
        trigger = self.library.triggers.get(event.trigger_ref)
        if trigger is None or not trigger.out_schema:
            return
        if not isinstance(event.payload, dict):
            yield Difference("payload", f"a map, as {trigger.ref} says", dumps(event.payload))
            return
        for problem in validate(event.payload, trigger.out_schema, closed=False):
            yield Difference(f"payload{_dotted(problem)}", f"what {trigger.ref} gives", problem.what)

    def _differences(self, verdict: Verdict) -> Iterator[Difference]:
        matched = verdict.decision is Decision.MATCHED
        if verdict.error is not None:
            yield Difference("matches", _said(self.case.matches), f"an error: {verdict.error}")
        elif matched != self.case.matches:
            yield Difference("matches", _said(self.case.matches), _said(matched))
        elif not matched:
            yield from self._clause_differences(verdict.clause)
        else:
            yield from self._call_differences(verdict.parameters or {})

    def _clause_differences(self, clause: Clause | None) -> Iterator[Difference]:
        failed = [] if clause is None else [leaf.text for leaf in _leaves(clause) if leaf.outcome == "false"]
        if self.case.clause is not None and not any(self.case.clause in text for text in failed):
            yield Difference("clause", self.case.clause, "; ".join(failed))

    def _call_differences(self, given: JsonObject) -> Iterator[Difference]:
        if self.case.action is not None and _full(self.case.action, self.pack) != self.rule.action_ref:
            yield Difference("action", _full(self.case.action, self.pack), self.rule.action_ref)
        action = self.library.actions.get(self.rule.action_ref)
        schema: JsonObject = {} if action is None else action.param_schema
        called = with_defaults(given, schema)
        for problem in validate(called, schema):
            yield Difference(f"parameters{_dotted(problem)}", f"what {self.rule.action_ref} takes", problem.what)
        if self.case.parameters is not None:
            # A default that the case leaves out is what it expects.
            yield from _compared(with_defaults(self.case.parameters, schema), called)


def _compared(expected: JsonObject, actual: JsonObject) -> Iterator[Difference]:
    for name in sorted(expected.keys() | actual.keys()):
        wanted, got = (_text(side[name]) if name in side else _NOTHING for side in (expected, actual))
        if wanted != got:
            yield Difference(f"parameters.{name}", wanted, got)


def _text(value: Json) -> str:
    """JSON text that is the same for the same value: keys have no order."""
    return dumps(_sorted(value))


def _sorted(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _leaves(clause: Clause) -> Iterator[Clause]:
    if not clause.clauses:
        yield clause
    for inner in clause.clauses:
        yield from _leaves(inner)


def _dotted(problem: Problem) -> str:
    return problem.where.replace("/", ".")


def _said(matches: bool) -> str:
    return "yes" if matches else "no"

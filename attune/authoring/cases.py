"""The tests of a pack, as files: `tests/*.yaml`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from attune.base.errors import Problem

Moment = Annotated[datetime | None, Field(strict=False)]


class GivenEvent(BaseModel):
    """An event, with the keys that `attune event show` prints. Those that no rule can see are left out."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    trigger_ref: str | None = None
    payload: Any = {}
    id: int = 1
    created: Moment = None


class Case(BaseModel):
    """An event, and what a rule is expected to make of it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=255)]
    rule: str | None = None
    trigger: str | None = None
    payload: Any = None
    event: GivenEvent | None = None
    config: dict[str, Any] = {}
    now: Moment = None
    matches: bool = True
    clause: str | None = None
    action: str | None = None
    parameters: dict[str, Any] | None = None

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not go together: keys, and why."""
        if self.event is not None and (self.trigger is not None or self.payload is not None):
            yield "event", "says trigger and payload itself; leave those out, or leave out event"
        if self.matches and self.clause is not None:
            yield "clause", "is for a rule that does not match: say matches: false"
        for key in ("action", "parameters"):
            if not self.matches and getattr(self, key) is not None:
                yield key, "is for a rule that matches: nothing is called otherwise"
        for key, moment in (("now", self.now), ("event/created", self.event.created if self.event else None)):
            if moment is not None and moment.tzinfo is None:
                yield key, "has no offset: end it with Z or +02:00"


class CaseFile(BaseModel):
    """What a file of tests holds. `rule` is the one of all cases that name none."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    rule: str | None = None
    cases: Annotated[list[Case], Field(min_length=1)]

    def problems(self) -> Iterator[Problem]:
        """What is wrong though every key has its type, as JSON Pointers."""
        for index, case in enumerate(self.cases):
            if case.rule is None and self.rule is None:
                yield Problem(f"/cases/{index}/name", "needs a rule, here or at the top of the file")
            for key, what in case.problems():
                yield Problem(f"/cases/{index}/{key}", what)

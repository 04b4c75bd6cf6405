"""The way in closes for a reason, says so once, and opens again."""

import pytest
from structlog.testing import capture_logs

from attune.base.errors import Unavailable
from attune.events.ingress import Ingress, Reason
from tests.support.clock import VirtualClock


class Limit:
    """Reached when a test says so."""

    def __init__(self, message: str) -> None:
        self.is_reached = False
        self._message = message

    def refusal(self) -> Unavailable | None:
        return Unavailable(self._message) if self.is_reached else None


@pytest.fixture
def limits() -> dict[Reason, Limit]:
    return {reason: Limit(f"because of {reason}") for reason in Reason}


@pytest.fixture
def ingress(limits: dict[Reason, Limit]) -> Ingress:
    return Ingress(limits, VirtualClock())


def test_each_refusal_is_counted_for_the_first_of_its_reasons(ingress: Ingress, limits: dict[Reason, Limit]) -> None:
    ingress.check()
    limits[Reason.BACKLOG].is_reached = True
    with pytest.raises(Unavailable, match="because of backlog"):
        ingress.check()
    limits[Reason.STORAGE].is_reached = True
    with pytest.raises(Unavailable, match="because of storage"):
        ingress.check()

    assert ingress.refused == {Reason.BACKLOG: 1, Reason.STORAGE: 1}
    assert list(ingress.refusals()) == [Reason.STORAGE, Reason.BACKLOG]


def test_the_log_has_a_line_when_it_closes_and_one_when_it_opens(ingress: Ingress, limits: dict[Reason, Limit]) -> None:
    with capture_logs() as lines:
        for is_reached in (False, True, True, False, False, True):
            limits[Reason.BACKLOG].is_reached = is_reached
            ingress.refusals()

    closed = ("nothing is taken from outside", "backlog", "because of backlog")
    opened = ("things are taken from outside again", "backlog", None)
    assert [(line["event"], line["reason"], line.get("why")) for line in lines] == [closed, opened, closed]

"""The index finds for everybody what their filters take, and nothing else."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attune.bus.messages import Entity, Notification, NotificationType
from attune.live.notes import Filter, Index, Note

_REFS = ["a.a", "b.b", "c.c"]
_STATUSES = ["failed", "running"]


def _some(values: list[Any]) -> st.SearchStrategy[frozenset[Any]]:
    return st.frozensets(st.sampled_from(values), max_size=2)


FILTERS = st.builds(
    Filter,
    entities=st.frozensets(st.sampled_from(list(Entity)), min_size=1),
    kinds=_some(list(NotificationType)),
    ids=_some([1, 2, 3]),
    refs=_some(_REFS),
    statuses=_some(_STATUSES),
)


def _note(kind: NotificationType, number: int, refs: dict[str, str | None], status: str | None) -> Note:
    return Note(0, Notification(kind, number, datetime(2026, 3, 1, tzinfo=UTC), {**refs, "status": status}))


NOTES = st.builds(
    _note,
    st.sampled_from(list(NotificationType)),
    st.sampled_from([1, 2, 3]),
    st.dictionaries(st.sampled_from(["action_ref", "rule_ref", "trigger_ref", "ref"]), st.sampled_from([*_REFS, None])),
    st.sampled_from([*_STATUSES, None]),
)


@given(
    st.lists(st.lists(FILTERS, max_size=3, unique=True), max_size=6),
    st.lists(NOTES, max_size=10),
    st.sets(st.integers(0, 5)),
)
def test_everybody_gets_what_any_of_their_filters_takes_once_and_in_order(
    wanted: list[list[Filter]], notes: list[Note], gone: set[int]
) -> None:
    index: Index[int] = Index()
    for who, filters in enumerate(wanted):
        for one in filters:
            index.add(one, who)
    for who in gone & set(range(len(wanted))):
        for one in wanted[who]:
            index.remove(one, who)

    found = index.fitting(notes)

    for who, filters in enumerate(wanted):
        takes = [note for note in notes if who not in gone and any(one.takes(note) for one in filters)]
        assert found.get(who, []) == takes

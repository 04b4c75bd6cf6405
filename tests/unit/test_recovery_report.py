"""What a start found unfinished, in sentences."""

from datetime import UTC, datetime

import pytest

from attune.executions.queries import Unfinished
from attune.upkeep.recovery import SHOWN, Interrupted, Outcome, Predecessor, Recovery, report

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def interrupted(execution: int, outcome: Outcome, reason: str | None = None) -> Interrupted:
    return Interrupted(execution, "shop.pay", outcome, reason)


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        (Recovery(NOW), []),
        (Recovery(NOW, Predecessor("boot", ())), ["Attune did not end cleanly the last time"]),
        (
            Recovery(NOW, Predecessor("boot", (71, 72))),
            ["Attune did not end cleanly the last time; 2 processes of it ended (71, 72)"],
        ),
        (
            Recovery(
                NOW,
                interrupted=(
                    interrupted(15, Outcome.ABANDONED, "action not retryable"),
                    interrupted(16, Outcome.ABANDONED, "action not retryable"),
                    interrupted(17, Outcome.RETRIED),
                ),
            ),
            [
                (
                    "3 executions were running when Attune stopped: 1 retried (17), "
                    "2 abandoned: action not retryable (15, 16)"
                )
            ],
        ),
        (
            Recovery(NOW, interrupted=(interrupted(1, Outcome.CANCELLED),)),
            ["1 execution was running when Attune stopped: 1 cancelled (1)"],
        ),
        (
            Recovery(
                NOW,
                waiting=(Unfinished("its retry", 1, (5,)), Unfinished("the scheduler", 2_000, tuple(range(SHOWN)))),
                deliveries={"attune.execution.requests.queue": 2_000, "attune.events.queue": 12},
                letters=(3, 4),
            ),
            [
                "1 execution waits for its retry: 5",
                f"2,000 executions wait for the scheduler: {', '.join(map(str, range(SHOWN)))}, and 1,980 more",
                "deliveries go on: 12 in attune.events.queue, 2,000 in attune.execution.requests.queue",
                "dead letters wait for somebody to look at them: 3, 4",
            ],
        ),
    ],
)
def test_it_says_how_many_of_what_came_to_what_and_which(found: Recovery, lines: list[str]) -> None:
    assert list(report(found)) == lines

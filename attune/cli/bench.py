"""`attune bench …`: measure this machine, with a server of its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from attune.cli.common import print_table
from attune.cli.talk import say

app = typer.Typer(name="bench", help="Measure how fast Attune is here, with a server of its own.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option(help="The config file to measure with.", exists=True, dir_okay=False, show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="The report as JSON.")]


@app.command()
def pipeline(
    seconds: Annotated[float, typer.Option(help="Seconds a round.", min=1)] = 8.0,
    rounds: Annotated[
        int, typer.Option(help="Rounds against the limit, or with metrics, or readers, and without.", min=1)
    ] = 3,
    metrics: Annotated[bool, typer.Option("--metrics", help="Measure what the metrics cost instead.")] = False,
    readers: Annotated[
        int, typer.Option(help="Measure what so many readers of live views cost instead.", min=0, max=250)
    ] = 0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Events to completed executions: how many a second, how long each takes, and how far from the database's limit."""
    from attune.bench.pipeline import Report, measure
    from attune.bench.surroundings import bench_settings

    if metrics:
        _compare_metrics(seconds, rounds, config, as_json=as_json)
        return
    if readers:
        _compare_readers(readers, seconds, rounds, config, as_json=as_json)
        return
    report: Report = _run(measure, bench_settings(config), seconds, rounds, say)
    if as_json:
        _print_json(report.as_json())
        return
    rows = [
        [
            str(one.in_flight),
            f"{one.pipelines_per_second:,.0f}",
            f"{one.whole_ms.p50:.1f} / {one.whole_ms.p99:.1f}",
            f"{one.loop_lag_ms.p50:.1f} / {one.loop_lag_ms.p99:.1f}",
        ]
        for one in report.rounds
    ]
    print_table(["in flight", "pipelines a second", "whole, ms (p50 / p99)", "loop lag, ms (p50 / p99)"], rows)
    print()  # noqa: T201 - data
    consumers = list(report.rounds[0].hops_ms)
    hops = [
        [name, *(f"{one.hops_ms[name].p50:.1f} / {one.hops_ms[name].p99:.1f}" for one in report.rounds)]
        for name in consumers
    ]
    print_table(["hop, ms (p50 / p99)", *(f"{one.in_flight} in flight" for one in report.rounds)], hops)
    print()  # noqa: T201 - data
    started = report.accepted_to_started_ms
    _print_lines(
        ("accepted to started, one in flight", f"p50 {started.p50:.1f} ms, p99 {started.p99:.1f} ms"),
        ("pipelines a second, 500 in flight", f"{report.pipelines_per_second:,.0f}"),
        ("limit of the database", f"{report.limit_per_second:,.0f} over {report.limit_connections} connection(s)"),
        ("ratio to the limit", f"{report.ratio_to_limit:.2f}"),
        ("machine", f"{report.cpus} processors, Python {report.python}, PostgreSQL {report.postgres}"),
    )


def _compare_metrics(seconds: float, rounds: int, config: Path | None, *, as_json: bool) -> None:
    from attune.bench.metrics import Report, measure
    from attune.bench.surroundings import bench_settings

    report: Report = _run(measure, bench_settings(config), seconds, rounds, say)
    if as_json:
        _print_json(report.as_json())
        return
    print_table(
        [f"{report.in_flight} in flight", "with metrics", "without", "they cost"],
        [
            [
                "pipelines a second",
                f"{report.with_metrics.pipelines_per_second:,.0f}",
                f"{report.without.pipelines_per_second:,.0f}",
                f"{report.rate_cost_percent:.1f}%",
            ],
            [
                "computing for each, µs",
                f"{report.with_metrics.cpu_us:,.0f}",
                f"{report.without.cpu_us:,.0f}",
                f"{report.cpu_cost_percent:.1f}%",
            ],
        ],
    )


def _compare_readers(readers: int, seconds: float, rounds: int, config: Path | None, *, as_json: bool) -> None:
    from attune.bench.readers import Report, measure
    from attune.bench.surroundings import bench_settings

    report: Report = _run(measure, bench_settings(config), readers, seconds, rounds, say)
    if as_json:
        _print_json(report.as_json())
        return
    busy, quiet = report.latency_ms, report.quiet_latency_ms
    _print_lines(
        (f"pipelines a second, {readers} readers", f"{report.pipelines_with:,.0f}"),
        ("pipelines a second, none", f"{report.pipelines_without:,.0f}"),
        ("the readers cost", f"{report.rate_cost_percent:.1f}% of the rate, {report.cpu_cost_percent:.1f}% computing"),
        ("commit to reader, nothing else happens", f"p50 {quiet.p50:.1f} ms, p99 {quiet.p99:.1f} ms"),
        (f"commit to reader, {report.in_flight} in flight", f"p50 {busy.p50:.1f} ms, p99 {busy.p99:.1f} ms"),
    )


@app.command()
def timers(
    count: Annotated[int, typer.Option(help="How many timers.", min=1)] = 10_000,
    seconds: Annotated[float, typer.Option(help="Seconds to watch the intervals.", min=1)] = 30.0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Timers: how late intervals with spread phases are, and how long crons take that are due in the same second."""
    from attune.bench.surroundings import bench_settings
    from attune.bench.timers import INTERVAL, Report, measure

    report: Report = _run(measure, bench_settings(config), count, seconds, say)
    if as_json:
        _print_json(report.as_json())
        return
    late = report.interval_lateness_ms
    _print_lines(
        (f"{report.timers:,} intervals of {INTERVAL} s", f"{report.interval_fires:,} fires"),
        ("instant to committed event", f"p50 {late.p50:.1f} ms, p99 {late.p99:.1f} ms"),
        (f"{report.timers:,} crons in one second", f"{report.cron_fires:,} fires"),
        ("all committed after", f"{report.cron_all_committed_ms:,.0f} ms"),
    )


@app.command()
def retention(
    rows: Annotated[int, typer.Option(help="How many old rows to make.", min=10_000)] = 1_000_000,
    rate: Annotated[float, typer.Option(help="Pipelines a second meanwhile.", min=1)] = 200.0,
    seconds: Annotated[float, typer.Option(help="Seconds a round.", min=1)] = 8.0,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Retention: how much slower pipelines are while old rows go, how fast those go, and whether sizes level off."""
    from attune.bench.retention import Report, measure
    from attune.bench.surroundings import bench_settings

    report: Report = _run(measure, bench_settings(config), rows, rate, seconds, say)
    if as_json:
        _print_json(report.as_json())
        return
    _print_lines(
        ("pipelines a second", f"{report.pipelines_per_second:g}"),
        ("whole, nothing goes", f"p50 {report.quiet_ms.p50:.1f} ms, p99 {report.quiet_ms.p99:.1f} ms"),
        ("whole, old rows go", f"p50 {report.removing_ms.p50:.1f} ms, p99 {report.removing_ms.p99:.1f} ms"),
        ("ratio of the p99", f"{report.p99_ratio:.2f}"),
        ("rows removed a second", f"{report.rows_removed_per_second:,.0f}"),
        ("history, full", f"{report.full_mb:,.1f} MB"),
        ("after a period of churn", f"{report.churned_mb:,.1f} MB"),
        ("level-off factor", f"{report.level_off:.2f}"),
    )


@app.command()
def start(
    starts: Annotated[int, typer.Option(help="How many starts of each kind.", min=1)] = 5,
    idle: Annotated[float, typer.Option(help="Seconds to idle.", min=1)] = 30.0,
    as_json: Json = False,
) -> None:
    """Start-up and idling: seconds until the server is ready, and what it costs when nothing happens."""
    from attune.bench.start import measure

    report = measure(starts, idle, say)
    if as_json:
        _print_json(report.as_json())
        return
    _print_lines(
        ("ready, empty data directory", f"{report.empty_directory_s:.2f} s"),
        ("ready, existing data directory", f"{report.existing_directory_s:.2f} s"),
        ("idle", f"{100 * report.idle_cpu_share:.2f}% of a core, {report.idle_pss_mb:.0f} MB in all processes"),
    )


@app.command()
def backlog(
    events: Annotated[int, typer.Option(help="How many events.", min=1)] = 200_000,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Too many events: how many are accepted a second, how much waits then, and what that costs in memory."""
    from attune.bench.backlog import Report, measure
    from attune.bench.surroundings import bench_settings

    report: Report = _run(measure, bench_settings(config), events, say)
    if as_json:
        _print_json(report.as_json())
        return
    _print_lines(
        (f"{report.events:,} events accepted", f"{report.accepted_per_second:,.0f} a second"),
        ("most deliveries that waited", f"{report.peak_backlog:,}"),
        ("memory, at most more than before", f"{report.memory_growth_mb:.0f} MB"),
        ("drained after the last event", f"{report.drained_s:.1f} s"),
        ("pipelines a second, altogether", f"{report.pipelines_per_second:,.0f}"),
        ("deliveries that the sweep found", str(report.rescued)),
    )


@app.command()
def inquiries(
    count: Annotated[int, typer.Option(help="How many questions.", min=1)] = 10_000,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Questions that nobody answers: what they cost in memory."""
    from attune.bench.inquiries import Report, measure
    from attune.bench.surroundings import bench_settings

    report: Report = _run(measure, bench_settings(config), count, say)
    if as_json:
        _print_json(report.as_json())
        return
    _print_lines(
        (f"{report.open:,} questions asked", f"{report.asked_per_second:,.0f} a second"),
        ("memory more than without", f"{report.memory_growth_mb:.1f} MB"),
    )


@app.command()
def recovery(
    waiting: Annotated[int, typer.Option(help="How many deliveries wait when it is killed.", min=1)] = 10_000,
    as_json: Json = False,
) -> None:
    """After kill -9: how soon a server goes on with what waited, and whether it is as fast as before."""
    from attune.bench.recovery import measure

    report = measure(waiting, say)
    if as_json:
        _print_json(report.as_json())
        return
    _print_lines(
        ("deliveries that waited", f"{report.waiting:,} or more"),
        ("ready after the kill", f"{report.ready_s:.2f} s"),
        ("first execution after that", f"{report.first_execution_s:.2f} s"),
        ("executions a second without a kill", f"{report.normal_per_second:,.0f}"),
        ("executions a second after it", f"{report.recovered_per_second:,.0f}"),
        ("ratio", f"{report.ratio:.2f}"),
    )


def _run(measure: Callable[..., Any], *arguments: Any) -> Any:
    import anyio

    from attune.base.errors import plain_errors

    with plain_errors():
        return anyio.run(measure, *arguments)


def _print_json(report: dict[str, Any]) -> None:
    print(json.dumps(report, indent=2))  # noqa: T201 - data


def _print_lines(*lines: tuple[str, str]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name.ljust(width)}  {value}")  # noqa: T201 - data

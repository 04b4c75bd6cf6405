"""The commands, put together."""

import typer

from attune.cli import apply, bench, bus, catalog, event, execution, identity, inquiry, pack, rule, system, timer, why
from attune.cli.common import command
from attune.cli.doctor import doctor
from attune.cli.serve import serve
from attune.cli.space import space
from attune.cli.watch import watch

app = typer.Typer(
    name="attune",
    help="Event-driven automation in one process.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
command(app)(system.status)
command(app)(doctor)
command(app)(space)
command(app)(watch)
app.command()(system.version)
# What psql understands is psql's business.
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["--help"]}
)(system.psql)
command(app)(execution.run)
app.command()(pack.check)
catalog.pack.command("new")(pack.new)
catalog.pack.command("test")(pack.run_cases)
command(app)(apply.apply)
for noun in (
    why.app,
    rule.app,
    timer.app,
    catalog.pack,
    catalog.trigger,
    catalog.action,
    event.event,
    event.enforcement,
    execution.app,
    inquiry.app,
    bus.app,
    identity.app,
    bench.app,
):
    app.add_typer(noun)

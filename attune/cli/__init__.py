"""The command line. It speaks HTTP to the server; `serve` is the server."""


def main() -> None:
    """The entry point of `attune`."""
    from attune.cli.root import app
    from attune.cli.talk import run

    run(app)

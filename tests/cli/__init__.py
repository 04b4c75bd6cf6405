"""The command line, as processes that talk to a server."""

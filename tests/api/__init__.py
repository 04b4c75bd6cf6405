"""The HTTP API, asked over HTTP."""

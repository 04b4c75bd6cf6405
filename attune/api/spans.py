"""Spans of time, as callers write them."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Span = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}[smhd]$")]
"""Such as 90s, 30m, 24h or 7d."""


def length(span: str) -> timedelta:
    """How long a span is."""
    return timedelta(**{_UNITS[span[-1]]: int(span[:-1])})

"""Upkeep: what keeps an installation healthy over time."""

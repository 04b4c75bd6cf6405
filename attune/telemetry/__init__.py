"""Seeing what goes on: logs and measurements."""

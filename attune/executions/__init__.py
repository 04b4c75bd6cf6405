"""Executions: from an enforcement to a terminal state, with everything that decides in between."""

"""Rules that fire by the clock: when, and what becomes of the times that were missed."""

"""Rules: which of them an event matches, with what parameters, and why not."""

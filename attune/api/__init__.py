"""The HTTP API: what callers send is checked here, and what they get is shaped here."""

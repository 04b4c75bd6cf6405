"""Live views: what becomes of what people watch, passed on to whoever looks."""

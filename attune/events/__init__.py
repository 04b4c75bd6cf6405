"""Events: the immutable record of what happened."""

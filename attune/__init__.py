"""Event-driven automation in one process. To actions written in Python it is the module `attune/sdk/attune.py`."""

from attune.sdk.attune import action, log, progress

__all__ = ["action", "log", "progress"]
__version__ = "0.1.0"

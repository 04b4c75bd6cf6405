"""PostgreSQL inside Attune: its programs found, its cluster made, its server run as a child of this process."""

from attune.database.embedded.binaries import Binaries, find_binaries
from attune.database.embedded.cluster import Cluster

__all__ = ["Binaries", "Cluster", "find_binaries"]

"""Rules whose executions do not overlap: whose turn it is, and who comes next."""

"""What everything stands on: pure values and functions, without I/O."""

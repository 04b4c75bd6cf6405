"""Workers: running actions, as coroutines or as child processes."""

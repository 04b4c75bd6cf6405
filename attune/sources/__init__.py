"""What makes events: timers."""

"""Questions to people, and who answers them."""

"""For those who write packs, without a server: checking, trying and starting them."""

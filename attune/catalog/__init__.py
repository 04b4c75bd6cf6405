"""Definitions: packs, triggers, actions and rules; reading, checking and installing them."""

"""Measurements that anybody can repeat: `attune bench`."""

"""The real server, killed at every named point and at any instant; what is right is decided from outside."""

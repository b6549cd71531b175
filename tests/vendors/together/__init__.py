"""A server that plays Together on loopback."""

"""A server that plays Vertex AI on loopback."""

"""A server that plays OpenAI on loopback."""

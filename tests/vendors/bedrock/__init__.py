"""A server that plays Bedrock on loopback."""

"""Serve a local model with OpenAI's API; requests join a running batch."""

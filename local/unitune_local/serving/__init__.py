"""A local model as a server: requests that join a running batch, on OpenAI's wire."""

"""Vertex AI of Google Cloud."""

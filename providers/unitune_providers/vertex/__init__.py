"""Google Cloud's Vertex AI."""

"""OpenAI and vendors with its API: Azure, Mantle, Nebius and any compatible server."""

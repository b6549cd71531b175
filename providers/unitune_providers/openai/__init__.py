"""OpenAI, and the vendors that speak its wire: Azure, Mantle, Nebius, any server."""

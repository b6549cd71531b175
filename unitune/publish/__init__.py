"""Publish models: `hub.push` sends an export and its card to the Hugging Face Hub."""

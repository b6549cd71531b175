"""Publish models: `hub.push` uploads an export and its card to the Hugging Face Hub."""

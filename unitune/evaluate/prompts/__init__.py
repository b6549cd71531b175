"""Build contenders with their prompts, and find tuned models."""

"""Who competes, with which prompts, and where a tuned model comes from."""

"""Publish models: `hub.push` uploads an export and its card to the Hugging Face Hub."""

PUSHED = "run.pushed"  # key prefix of a run's event about an upload of its model

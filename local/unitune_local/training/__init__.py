"""Run a training in its worker process, from settings to a checked adapter."""

"""Models and adapters on this machine: found, loaded, saved."""

"""Find, load and save models and adapters on this machine."""

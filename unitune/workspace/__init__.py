"""Manage unitune's state on this machine: folders, files, locks, the user's configuration."""

"""What unitune keeps on this machine: its folder, files, locks, the user's configuration."""

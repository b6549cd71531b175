"""A backend for a made-up vendor, as a package of its own."""

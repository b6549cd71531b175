"""A backend for the vendor of `unitune.testing.example_vendor`, as a package of its own."""

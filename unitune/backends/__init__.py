"""Who tunes: the protocol of a backend, what is known of it, and how it is found by name."""

"""Look up, check and refresh prices."""

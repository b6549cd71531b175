"""Generate answers on this machine, and forecast their cost."""

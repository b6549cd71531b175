"""Plan a job: what it would do and cost, and what prevents it. Nothing here starts a training."""

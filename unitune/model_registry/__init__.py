"""The life of tuned models: versions, aliases, promotion, rollback, verification."""

"""What a run's model is published with: its card, training summary, data set and provenance."""

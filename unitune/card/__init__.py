"""Write a model's documents: card, training summary, data set description and provenance."""

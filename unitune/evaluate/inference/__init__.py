"""Send requests to models: pacing, budgets, batches and recorded answers."""

"""Find training rows to review: near duplicates, doubtful answers, odd ones."""

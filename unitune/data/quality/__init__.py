"""What a person should look at in training rows: near duplicates, doubtful answers, odd ones."""

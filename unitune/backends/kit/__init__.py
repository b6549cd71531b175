"""What a hosted backend is made of."""

"""Ship general questions and a general text, on which tuned and untuned models are compared."""

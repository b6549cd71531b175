"""Turn rows into token ids and lay them out for the model."""

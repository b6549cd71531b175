"""Request judgements of answers from a language model, and check the judge itself."""

"""Export a tuned model in the forms of other programs, and verify each."""

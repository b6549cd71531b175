"""A tuned model in the forms that other programs load, each verified before it is called done."""

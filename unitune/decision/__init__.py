"""Whether to tune, or to prompt: evidence, the rules, and the steps that gather it."""

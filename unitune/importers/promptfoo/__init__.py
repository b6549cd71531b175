"""promptfoo's configs and results.

config    prompts, providers and tests ──► Suite with translated scorers
results   what `promptfoo eval -o` wrote ──► Suite with recorded answers and their scores

prompts, tests        what stands in a config, and how promptfoo counts it
templates, yaml12     ``{{ name }}`` and YAML 1.2, as promptfoo reads them
assertions, scorers   one assertion as a scorer; scorers that all cases share
javascript_regex      patterns in Python's syntax
"""

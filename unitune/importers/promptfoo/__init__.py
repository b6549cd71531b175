"""Results of promptfoo.

results            what `promptfoo eval -o` wrote ──► Suite
scorers            from assertions that differ by test to scorers that all cases share
assertions         one assertion as a scorer
javascript_regex   patterns in Python's syntax
"""

"""Results of promptfoo.

results            what `promptfoo eval -o` wrote ──► Suite
rows               a row of it
providers          its providers as contenders
tests              a test as the scorers of a row
assertions         an assertion as an entry of them
code               assertions that are code, as functions of a file of the user's
functions          what that file makes its functions by
"""

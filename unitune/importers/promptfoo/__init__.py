"""Import results of promptfoo.

results            file written by `promptfoo eval -o` ──► Suite
rows               one result row
providers          providers as contenders
tests              tests as scorers of rows
assertions         assertions as entries of these scorers
"""

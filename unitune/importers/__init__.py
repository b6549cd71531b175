"""Suites and results of other evaluation tools, and jobs of vendors, as jobs of unitune.

    FILE ──► promptfoo, inspect_log, lm_eval    one format each
         ──► suite         `Suite`: cases, scorers, recorded answers, what is left out
         ──► import_suite  several files as one suite; unitune.yaml, test.jsonl, answers-NAME.jsonl

Answers come along with the scores that the other tool gave them (`recorded_score`), so that there
is nothing to translate, and a comparison of them calls no model and costs nothing. Where unitune
scores in just the same way, its scorers come along too; what has no counterpart is a finding.

`vendor_jobs` imports a training from a vendor. `new_job` makes a job for a file of examples, which
is of no tool: its columns are guessed, and its scorers chosen by its answers (`answers`).
"""

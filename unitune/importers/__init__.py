"""Import suites and results of other evaluation tools, vendors' jobs, and files of examples.

    FILE ──► promptfoo, inspect_log, lm_eval    one format each
         ──► suite         `Suite`: cases, scorers, recorded answers, findings
         ──► import_suite  several files as one suite; unitune.yaml, test.jsonl, answers-NAME.jsonl

Answers keep the other tool's scores (`recorded_score`), so comparing them calls no model. Scorers
are imported if unitune scores identically; anything without a counterpart is a finding.
`vendor_jobs` imports trainings, `traces` makes rows of a running product's requests, and `new_job`
makes a job for a file of examples.
"""

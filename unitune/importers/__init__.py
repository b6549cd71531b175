"""Bringing suites and results of other evaluation tools over: promptfoo, inspect, lm-eval.

    FILE ──► promptfoo_config, promptfoo_results, inspect_log, lm_eval    one format each
         ──► suite     `Suite`: cases, scorers, recorded answers, what cannot come along
         ──► import_suite  several files as one suite; unitune.yaml, test.jsonl, answers-NAME.jsonl

A suite (a config of promptfoo) says how answers are scored, and is translated as far as unitune
scores in just the same way; what has no counterpart is a finding. Results hold answers with the
scores that the other tool gave. They come along as they are (`recorded_score`), so that there is
nothing to translate, and a comparison of them asks nobody and costs nothing.

Not here: jobs of vendors (`unitune.importers.vendor_jobs`).
"""

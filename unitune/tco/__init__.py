"""What it would cost to own a job's tuned model, against prompting: `own` gathers and reckons.

    job, data, comparisons ──► usage.py    figures, each with where it comes from
    offers, prices         ──► pricing.py  what applies on the day
    both                   ──► columns.py  prompted, tuned, newest untuned
    columns                ──► own.py      totals, break-even, pay-back: an `Ownership` document

The arithmetic is `unitune.cost.ownership`; how it looks is `unitune.report.tco`.
"""

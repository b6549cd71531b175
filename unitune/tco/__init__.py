"""Total cost of ownership of a job's tuned model, against prompting: `total_cost`.

    job, data, comparisons ──► usage.py      figures, each with where it comes from
    offers, prices         ──► pricing.py    what applies on the day
    both                   ──► columns.py    prompted, tuned, newest untuned
    columns                ──► total_cost.py totals, break-even, pay-back: a `TotalCost` document

The break-even arithmetic is `unitune.cost.break_even`; how it looks is `unitune.report.tco`.
"""

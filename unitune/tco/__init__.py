"""Total cost of ownership of a job's tuned model, against prompting: `total_cost`.

    rows, comparisons ──► tokens.py      counted and measured tokens
    job, tokens       ──► usage.py       figures, each with where it comes from
    offers, prices    ──► serving.py     prompted, tuned, newest untuned
    all three         ──► total_cost.py  totals, break-even, pay-back: a `TotalCost` document

The break-even arithmetic is `unitune.cost.break_even`; how it looks is `unitune.report.total_cost`.
"""

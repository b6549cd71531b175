"""Total cost of ownership of a job's tuned model, against prompting: `total_cost`.

    rows, comparisons ──► tokens.py      counted and measured tokens
    job, tokens       ──► usage.py       requests, and figures with their sources
    offers, prices    ──► serving.py     price of a request, a month
    all three         ──► total_cost.py  totals, break-even, pay-back: a `TotalCost` document

The break-even arithmetic is in `unitune.cost.break_even`, the view in `unitune.report.total_cost`.
"""

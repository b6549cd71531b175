"""What a job would do and cost, before anything is spent; nothing here starts anything.

    job                ──► preflight.py      everything looked up, once: a `ResolvedJob`
    offer, day, rows   ──► feasibility.py    what speaks against the job, and who else can take it
    rows               ──► rows.py           counted, written, and held against limits
    workload, prices   ──► money.py          the estimate, and what budgets say against it
    options            ──► backend_calls.py  what the backend itself says; on request its own price
    all of these       ──► plan.py           a `Plan`; saved.py binds a launch to it

masks.py shows which tokens a training learns.
"""

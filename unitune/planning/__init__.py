"""What a job would do and cost, before anything is spent; nothing here starts anything.

    job                ──► preflight.py   everything looked up, once: a `ResolvedJob`
    offer, day, rows   ──► feasibility.py what speaks against the job, and who else can take it
    these and money    ──► plan.py        a `Plan` (documents.py); saved.py binds a launch to it

Only on request: quoting.py gets a vendor's own price, masks.py shows which tokens are learnt.
"""

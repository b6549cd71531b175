"""What a job would do and cost, before anything is spent; nothing here starts anything.

    offer, day      ──► feasibility.py  what speaks against the job; elsewhere.py: who can take it
    rows            ──► rows.py         read once, written in each format, counted by each tokenizer
    prices, ledger  ──► money.py        limits, what was spent, what earlier runs tell
    all three       ──► plan.py         a `Plan` (documents.py); saved.py binds a launch to it

Only on request: calibration.py times a few steps here, quoting.py asks a vendor for its own price,
masks.py shows which tokens are learnt.
"""

"""The durable run: launched once whatever breaks, watched, ended, and its costs taken down.

    run.py        ──► handle.py     `launch` writes a run down; a `Run` is the handle that acts
    handle.py     ──► launching.py  every step journalled before it is done, safe to do again
    launching.py  ──► creating.py   the job, created once (`unitune.backends.exactly_once`)
    watching.py                     all runs from one process, within the vendors' limits
    deploying.py  ──► deployment.py what costs money while it stands
                  ──► reaper.py     the process that takes it down in time
    deleting.py                     what a run has left at a vendor

Where all of it is written down is `unitune.ledger`; what it may cost, `unitune.ledger.budgeting`.
"""

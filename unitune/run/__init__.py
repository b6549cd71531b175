"""The durable run: launched once whatever breaks, watched, ended, and its costs taken down.

    run.py        ──► handle.py     `launch` writes a run down; a `Run` is the handle that acts
    handle.py     ──► launching.py  every step journalled before it is done, safe to do again
    launching.py  ──► uploading.py  files uploaded once, by the hash of their content
                  ──► creating.py   the job, created once (`unitune.backends.exactly_once`)
    creating.py   ──► duplicates.py a second job under the run's key is reported
    adopting.py                     whether a job that the user names can be the run's
    watching.py                     all runs from one process, within the vendors' limits
    deploying.py  ──► deployment.py what costs money while it stands, and how it is taken down
                  ──► reaping.py    a process is left behind that does so in time: reaper.py
    weights.py                      checkpoints, and weights to take home
    deleting.py                     what a run has left at a vendor

Where all of it is written down is `unitune.ledger`; what it may cost, `unitune.ledger.budgeting`.
"""

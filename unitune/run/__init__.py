"""Launch, watch and end durable runs.

run.py        ──► handle.py     `launch` records a run; a `Run` is its handle
handle.py     ──► launching.py  every step is recorded before it is done and can be repeated
launching.py  ──► creating.py   creates the job once (`unitune.backends.exactly_once`)
watching.py                     watches all runs in one process, within the vendors' limits
deploying.py  ──► deployment.py hosts models, which costs money by the hour
              ──► reaper.py     process that takes a deployment down in time
deleting.py                     deletes what a run left at a vendor
"""

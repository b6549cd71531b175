"""Send the events of runs to experiment trackers: MLflow, W&B, TensorBoard and trackio.

A job names its trackers (``track: [mlflow]``). The ledger's events feed them, so a run at a vendor
is tracked like a local one. `feed` starts one process per tracker; each tracker implements
`interface.Tracker`.
"""

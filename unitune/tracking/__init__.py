"""Send the events of runs to experiment trackers: MLflow, W&B, TensorBoard and trackio.

A job names them (``track: [mlflow]``). They are fed from the ledger's events, so a run at a vendor
is tracked like one here. `feed` runs one process per tracker; each tracker is a class
(`interface.Tracker`).
"""

"""Experiment trackers: what the ledger knows of a run, sent to MLflow, W&B, TensorBoard or trackio.

A job names them (``track: [mlflow]``). They are fed from the ledger's events, so a run at a vendor
is tracked like one here. `follow` is the process that does it; each tracker is a class of its own
(`interface.Tracker`).
"""

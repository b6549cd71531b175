"""Define the parts of a job file; unknown keys are refused with the nearest valid name."""

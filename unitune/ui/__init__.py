"""A local page to look at runs, comparisons, deployments and cases: ``unitune ui``."""

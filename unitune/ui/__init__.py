"""Serve local pages with runs, comparisons, deployments and cases (``unitune ui``)."""

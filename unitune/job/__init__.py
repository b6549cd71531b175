"""What may stand in a job file, part by part; `unitune.job.job` puts the parts together.

Each is read strictly: a key that is not known is refused with the nearest right name (`spec`).
"""

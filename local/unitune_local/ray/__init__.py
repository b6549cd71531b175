"""Run the trainings of `unitune_local` on a Ray cluster."""

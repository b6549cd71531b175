"""The backend named ``ray``: the training of `unitune_local` on a Ray cluster."""

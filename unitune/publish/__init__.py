"""Models that are published: `hub.push` sends an export and its card to the Hugging Face Hub."""

PUSHED = "run.pushed"  # how the key begins of a run's event that its model was sent somewhere

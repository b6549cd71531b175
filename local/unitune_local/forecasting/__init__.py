"""What a training would take: time and memory."""

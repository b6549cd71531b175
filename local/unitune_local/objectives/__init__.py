"""What a training minimises: losses of rows and of pairs, and what answers earn."""

"""Read, check and split training rows and test cases."""

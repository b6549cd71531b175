"""What comes from outside, without trust: addresses, keys in texts, terminal controls, JSON."""

"""Tinker on loopback: its API as the SDK's own types and protocol buffers describe it."""

KEY = "tml-loopback-key"

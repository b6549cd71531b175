"""Let people review a comparison's answers blind, and use their labels."""

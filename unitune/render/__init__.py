"""Draw documents in a terminal, as Markdown and as HTML from one list of sections."""

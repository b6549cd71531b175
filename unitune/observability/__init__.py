"""Report what unitune does: log records and OpenTelemetry spans, metrics and events."""

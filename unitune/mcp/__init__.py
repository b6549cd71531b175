"""Serve unitune to coding agents over the Model Context Protocol (MCP)."""

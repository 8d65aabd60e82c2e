"""What this plugin provides: light records, nothing heavy imported."""

"""The streaming engine: plan, read in pieces, merge, write, journal."""

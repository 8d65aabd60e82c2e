"""No network, no output, no traces in global state, no dangerous calls."""

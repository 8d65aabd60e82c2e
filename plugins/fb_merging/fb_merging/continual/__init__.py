"""Methods that take models one after the other."""

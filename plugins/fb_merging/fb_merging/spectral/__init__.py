"""Methods that work on the singular vectors of task vectors."""

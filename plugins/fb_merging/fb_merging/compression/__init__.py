"""Methods that make a model or its task vector smaller."""

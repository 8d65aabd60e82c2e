"""Methods that give another model for each task, from one task vector and a mask a task."""

"""Text tasks: data, heads and batches; measuring is the core's."""

"""Cards, splits, labels, the offline example."""

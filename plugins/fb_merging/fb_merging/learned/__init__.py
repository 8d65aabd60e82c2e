"""Methods that learn how to merge by gradient descent."""

"""Methods that look at task vectors and leave the model as it is."""

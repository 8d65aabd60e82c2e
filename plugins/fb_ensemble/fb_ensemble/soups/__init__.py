"""Model soups: means of the weights of models that were fine-tuned alike."""

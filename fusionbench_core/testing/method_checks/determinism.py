"""The same bits, whatever the seed should not decide."""

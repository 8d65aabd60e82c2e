"""What a stranger sees when something does not fit."""

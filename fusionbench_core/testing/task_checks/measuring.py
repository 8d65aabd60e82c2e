"""What a measurement gives, and what it leaves as it was."""

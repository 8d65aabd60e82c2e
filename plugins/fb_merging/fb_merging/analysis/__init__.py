"""Looking at task vectors: how long, how alike, and where they disagree."""

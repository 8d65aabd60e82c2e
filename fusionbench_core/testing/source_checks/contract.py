"""Names, headers, assets, revisions."""

"""A method is its validated parameters: construction, round trips, documentation."""

"""YAML presets: the embedded vision benchmark, and the pools that FusionBench's users know."""

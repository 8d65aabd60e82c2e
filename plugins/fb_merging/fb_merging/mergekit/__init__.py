"""Configs of mergekit, as configs of this platform."""

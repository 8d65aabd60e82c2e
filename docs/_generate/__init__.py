"""What docs/generate.py puts into the templates: each module gives the fragments of its pages."""

"""MorphoCLIP."""

"""Tasks: questions on profiles, and their controls."""

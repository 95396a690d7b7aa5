"""Profiles ▶ answers."""

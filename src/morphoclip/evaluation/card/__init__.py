"""Scoring: questions on profile tables ▶ a score card."""

"""Questions ▶ a score card."""

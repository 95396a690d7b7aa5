"""Score cards ▶ one HTML file, with its pictures."""

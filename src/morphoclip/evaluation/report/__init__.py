"""Score cards ▶ one HTML file with images."""

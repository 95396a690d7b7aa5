"""One experiment: prepare, fit, profile, score."""

"""Files of public databases that the user has ▶ one table of perturbations and genes, each field with its source."""

"""Splits by perturbation, scaffold, plate, batch or source, from hashes of the names alone."""

"""A lab's own package: a backbone, a loss and a method that morphoclip knows nothing of."""

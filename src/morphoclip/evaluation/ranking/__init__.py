"""Average precision, its significance and its intervals."""

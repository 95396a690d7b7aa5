"""Tables of profiles and of metadata, in any layout ▶ canonical tables."""

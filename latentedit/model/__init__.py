"""A model as a whole: its file, its fingerprint, what it costs."""

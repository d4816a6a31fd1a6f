"""Photographs: faces, alignment, pasting back, checks before the search."""

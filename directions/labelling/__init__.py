"""Labelling by hand: random samples, the table of answers, and the page that asks."""

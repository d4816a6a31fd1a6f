"""The generators and discriminators, layer by layer."""

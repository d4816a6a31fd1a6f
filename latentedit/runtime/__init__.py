"""The machine: devices, CUDA graphs, libraries that need a hand."""

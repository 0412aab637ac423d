"""nn/kernels."""

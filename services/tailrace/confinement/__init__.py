"""What a process may touch, enforced by the kernel: the bottom of the tree, it knows nothing but errors."""

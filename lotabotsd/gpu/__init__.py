"""What GPUs there are and how they feel."""

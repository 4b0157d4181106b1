"""The control plane: the API behind lotabotsctl and the console."""

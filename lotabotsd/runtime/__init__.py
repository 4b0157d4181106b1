"""Triton: started, watched, drained and restarted."""

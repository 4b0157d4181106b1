"""Signed statements about the appliance, and their offline verification."""

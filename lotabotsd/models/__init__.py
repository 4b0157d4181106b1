"""Model packages: checked, digested, and prepared for the runtime at hand."""

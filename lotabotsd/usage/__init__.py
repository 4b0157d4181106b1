"""What was used: journal, ledger, usage report."""

"""Who may ask: organisations, members, roles, API keys, and the audit trail."""

"""Every way of cheating that was thought of, carried out against the real code of both sides."""

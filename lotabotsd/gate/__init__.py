"""The data plane: every request, judged and measured."""

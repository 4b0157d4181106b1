"""The vendor's back office: roots, keyrings, licences, and the usage reports that come back."""

__version__ = "0.1.0"

"""The whole catalogue, in the order of the page."""

from __future__ import annotations

from . import answers, bills, documents, histories, journals, ledger, licences, machines, reports, trust
from .cheat import Cheat

CHAPTERS: tuple[tuple[str, tuple[Cheat, ...]], ...] = (
    ("Licences", licences.CHEATS),
    ("Keyrings and revocations", trust.CHEATS),
    ("The machine and its requests", machines.CHEATS),
    ("Journals before they are read", journals.CHEATS),
    ("The ledger", ledger.CHEATS),
    ("One usage report", reports.CHEATS),
    ("Usage reports in their order", histories.CHEATS),
    ("Acknowledgements", answers.CHEATS),
    ("The bill", bills.CHEATS),
    ("One document for another, tokens and receipts", documents.CHEATS),
)
ALL: tuple[Cheat, ...] = tuple(cheat for _, cheats in CHAPTERS for cheat in cheats)

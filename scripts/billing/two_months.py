"""Two months of one customer with two appliances: what each side sees, and what the bill says in the end."""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from saying import Telling, WrongResultError
from sites import Said, Site, Vendor, World, day

ROOT = Path(__file__).resolve().parents[2]
CUSTOMER = "Example Archive"
CARD = ROOT / "tests" / "golden" / "rate-card" / "standard.json"
EXPECTED = {  # by appliance and month, from docs/billing.md's rules, reckoned by hand
    ("east", "2026-09"): Decimal("114.00"),  # 50 000 paid ones at 1.90 per 1 000, 5 000 at 3.80
    ("west", "2026-09"): Decimal("50.00"),  # 10 000 at 1.90 are 19.00: the minimum
    ("east", "2026-10"): Decimal("201.25"),  # enterprise: 100 000 at 1.75, 20 000 at 1.3125
    ("west", "2026-10"): Decimal("57.00"),  # 30 000 at 1.90
}


class Walk:
    """The parties, and the papers that travel between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.telling = Telling()
        self.telling.call(f"{folder}/vendor", "DIR")
        self.telling.call(f"{folder}/", "")
        self.telling.call(f"{ROOT}/", "")
        self.world = World(day("2026-09-01 08:00"))
        self.vendor = Vendor(folder, self.world.clock(), self.telling)
        self.organisations: dict[str, str] = {}
        self.papers: dict[str, Path] = {}

    def paper(self, name: str) -> Path:
        """A file that travels by mail."""
        return self.papers.setdefault(name, self.folder / name)

    def step(self, title: str) -> None:
        self.telling.step(title, f"{self.world.now:%Y-%m-%d %H:%M}")

    def begin(self) -> None:
        """The vendor's ceremony, and two appliances out of the box."""
        vendor, telling = self.vendor, self.telling
        self.step("The vendor makes its keys and signs a rate card; two appliances are set up")
        vendor.run("root", "init", keys=True, show=("root", "issuing_key "))
        card = self.paper("standard.card")
        vendor.run(
            "rate-card",
            "sign",
            "--output",
            str(card),
            str(CARD),
            keys=True,
            show=("card", "currency", "valid"),
        )
        anchors = (vendor.directory / "anchors" / "production.json").read_bytes()
        self.east, self.west = (
            Site(name, self.folder / name, anchors, self.world.clock(), telling) for name in ("east", "west")
        )
        self.world.sites += [self.east, self.west]
        for site, organisation in ((self.east, "archive"), (self.west, "research")):
            made = site.quietly("organisation", "create", organisation, "--json").json
            self.organisations[site.name] = made["organisation_id"]
            telling.call(made["organisation_id"], f"org_{organisation}")

    def activate(self) -> None:
        """Requests out, bound licences back."""
        self.step("Each appliance asks for a licence of its own machine, and gets it")
        for site in (self.east, self.west):
            request, licence = self.paper(f"{site.name}.request"), self.paper(f"{site.name}.licence")
            asked = site.run("licence", "request", "--output", str(request), show=("code",))
            shown = self.vendor.bare("request", "show", str(request))
            code = asked.some("code")[0].split()[1]
            self.telling.proved("the vendor reads the same code off the file", code in shown.out)
            self.vendor.run(
                "licence", "issue", "--tier", "pro", "--customer", CUSTOMER, "--request", str(request),
                "--match", "operator", "--rate-card", str(CARD), "--report-grace-days", "45",
                "--output", str(licence),
                keys=True, show=("licence", "tier", "rate card"),
            )  # fmt: skip
            site.run("licence", "install", str(licence), show=("licence", "tier", "state"))
        other = str(self.paper("west.licence"))
        self.east.run("licence", "install", other, "--check", exit_code=3, show=("error", "hint"))

    def september(self) -> None:
        """Both are used; both write their reports by themselves; one is lost."""
        self.world.until(day("2026-09-14 10:00"))
        self.east.use(60_000, self.organisations["east"])
        self.east.use(5_000, self.organisations["east"], "page_segmentation")
        self.west.use(20_000, self.organisations["west"])
        self.world.until(day("2026-10-01 01:00"))
        self.step("On the first of October both appliances write their reports for September by themselves")
        for site in (self.east, self.west):
            site.run("usage", "reports", show=("1",))
        report = self.east.mail(1)
        self.verified(report, show=("verdict", "billable", "period", "charged"))
        self.acknowledged(self.east, report, "east-1.answer")
        self.telling.note(
            "The report of west is lost in the mail. Nobody at the vendor knows that it exists."
        )
        self.step("The vendor bills September, as far as it has heard of it")
        self.billed("2026-09", report)

    def rotate_and_upgrade(self) -> None:
        """A new issuing key, and a larger tier in the middle of a month."""
        self.world.until(day("2026-10-05 09:00"))
        self.step("The vendor changes its issuing key, and east moves up to enterprise")
        self.vendor.run("keyring", "rotate", keys=True, show=("version", "issuing_key "))
        self.keyring = str(self.vendor.directory / "keyrings" / "keyring-2.dsse.json")
        licence = self.paper("east-enterprise.licence")
        self.vendor.run(
            "licence", "issue", "--tier", "enterprise", "--customer", CUSTOMER, "--request",
            str(self.paper("east.request")), "--match", "operator", "--rate-card", str(CARD),
            "--output", str(licence),
            keys=True, show=("licence", "tier"),
        )  # fmt: skip
        self.east.run("licence", "install", str(licence), exit_code=6, show=("error", "hint"))
        self.telling.note("East does not know the new key yet: the keyring has to come along.")
        self.east.run("licence", "install", str(licence), self.keyring, show=("keyring", "licence", "tier"))

    def copy_a_disk(self) -> None:
        """West's disk is copied into a second machine, which is used too."""
        self.world.until(day("2026-10-08 20:00"))
        self.step("West's disk is copied into another machine, and both are switched on")
        self.copy = self.west.copied_to("copy", self.world.clock())
        self.telling.call(self.copy.appliance.appliance_id, "apl_west")
        self.world.sites.append(self.copy)
        self.telling.note(
            "The copy has west's configuration, licence, keys and ledger. It serves 30 000 inferences."
        )
        self.world.until(day("2026-10-12 10:00"))
        self.copy.use(30_000, self.organisations["west"])
        self.west.use(40_000, self.organisations["west"])

    def set_the_clock_back(self) -> None:
        """East's clock stands nine days back for a day."""
        self.world.until(day("2026-10-14 09:00"))
        self.east.use(100_000, self.organisations["east"])
        self.world.until(day("2026-10-15 09:00"))
        self.step("Somebody sets the clock of east back by nine days")
        self.east.ahead = timedelta(days=-9)
        self.world.until(day("2026-10-15 12:00"))
        self.east.use(30_000, self.organisations["east"])
        self.world.until(day("2026-10-16 09:00"))
        self.east.run("licence", "show", show=("state", "clock"))
        self.east.run("doctor", exit_code=3, show=("warning: the clock",))
        standing = json.loads(self.east.quietly("licence", "show", "--json").out)["standing"]
        self.telling.proved("it is flagged, and judged by the latest moment seen", standing["clock_suspect"])
        self.east.ahead = timedelta()
        self.world.until(day("2026-10-16 10:00"))
        standing = json.loads(self.east.quietly("licence", "show", "--json").out)["standing"]
        self.telling.proved("set right again, the flag is gone", not standing["clock_suspect"])

    def overdue(self) -> None:
        """West has no acknowledgement since September."""
        self.world.until(day("2026-10-20 09:00"))
        self.step("West hears that its report was never acknowledged")
        self.west.run("doctor", exit_code=3, show=("warning: the vendor",))
        duty = json.loads(self.west.quietly("status", "--json").out)["report"]["duty"]
        self.telling.proved(
            "it is overdue, and everything still works",
            duty["state"] == "overdue",
        )

    def october(self) -> None:
        """The reports of October, good and bad."""
        self.world.until(day("2026-11-01 01:00"))
        self.step("The reports of October arrive at the vendor")
        east, west, copy = (site.mail(2) for site in (self.east, self.west, self.copy))
        self.verified(east, exit_code=4, show=("verdict", "billable", "charged", "warning"))
        self.acknowledged(self.east, east, "east-2.answer")
        said = self.verified(west, exit_code=4, show=("verdict", "billable", "charged", "warning"))
        self.telling.proved("the vendor sees that report 1 of west is missing", "report_missing" in said.out)
        self.step("West sends its first report again, from its outbox")
        self.verified(self.west.mail(1), show=("verdict", "billable", "period", "charged"))
        self.step("A second October comes from the name of west: the copied disk")
        said = self.verified(copy, exit_code=4, show=("verdict", "billable", "error"))
        self.telling.proved("two reports follow one: the copy is found", "forked" in said.out)
        seats = self.vendor.quietly("seat", "list")
        self.telling.proved("seat list: west has two histories in the vendor's books", "fork" in seats.out)
        self.vendor.run("ack", "issue", str(copy), keys=True, exit_code=3, show=("error", "hint"))
        answer = self.paper("copy.answer")
        self.vendor.run(
            "ack", "issue", str(copy), "--reject", "a copy of west: stop it", "--output", str(answer),
            keys=True, show=("verdict", "reason"),
        )  # fmt: skip
        self.copy.run("licence", "install", self.keyring, show=("keyring",))
        self.copy.run("usage", "acknowledge", str(answer), exit_code=4, show=("verdict", "a copy"))
        self.copy.stop()
        self.world.sites.remove(self.copy)

    def late_answers(self) -> None:
        """West's acknowledgements come late, the newer one first."""
        for report, name in ((self.west.mail(2), "west-2.answer"), (self.west.mail(1), "west-1.answer")):
            self.vendor.quietly("ack", "issue", str(report), "--output", str(self.paper(name)), keys=True)
        self.world.until(day("2026-11-12 09:00"))
        self.step("The answers to west come late, and in the wrong order")
        self.west.run("licence", "install", self.keyring, show=("keyring",))
        for name in ("west-2.answer", "west-1.answer"):
            self.west.run(
                "usage", "acknowledge", str(self.paper(name)), show=("report", "verdict", "next one by")
            )
        duty = json.loads(self.west.quietly("status", "--json").out)["report"]["duty"]
        self.telling.proved("nothing is overdue any more", duty["state"] == "not_due")
        self.west.run("usage", "reports", show=("1", "2"))

    def bills(self) -> None:
        """The lines of both months; the customer's preview is the same bytes."""
        self.step("The vendor bills October, and September of west")
        reports = {site.name: [site.mail(1), site.mail(2)] for site in (self.east, self.west)}
        everything = [report for both in reports.values() for report in both]
        for month in ("2026-09", "2026-10"):
            self.billed(month, *everything)
        self.step("The customer looks at the same bills")
        for site in (self.east, self.west):
            for month in ("2026-09", "2026-10"):
                preview = site.quietly("bill", "preview", "--month", month, "--lines").out
                lines = self.vendor.quietly(
                    "rate", "--month", month, *(str(report) for report in reports[site.name])
                ).out
                site.run("bill", "preview", "--month", month, show=("total",))
                self.telling.proved(
                    f"{month} of {site.name}: preview and bill are the same bytes", preview == lines
                )
        self.step("What goes onto the invoices")
        for month in ("2026-09", "2026-10"):
            said = self.vendor.run(
                "invoice",
                "--customer",
                CUSTOMER,
                "--month",
                month,
                show=("invoice", "month", "total"),
            )
            total = sum(amount for (_, of), amount in EXPECTED.items() if of == month)
            self.telling.proved(f"{month}: {total} EUR for both", str(total) in said.out)
        again = self.vendor.quietly("rate", *(str(report) for report in everything))
        self.telling.proved("billing everything once more adds no line", " 0 of them new" in again.err)

    def afterwards(self) -> None:
        """The next report of west is one like any other: the copy's rejection left nothing behind."""
        self.world.until(day("2026-12-01 01:00"))
        self.step("A month later west reports as if nothing had been")
        said = self.verified(self.west.mail(3), show=("verdict", "billable", "charged"))
        self.telling.proved("the rejected copy is nobody's history", "valid\n" in said.out)
        seats = self.vendor.quietly("seat", "list")
        self.telling.proved("seat list: west is up to date", "fork" not in seats.out)

    def verified(self, report: Path, *, exit_code: int = 0, show: tuple[str, ...]) -> Said:
        return self.vendor.run("report", "verify", str(report), exit_code=exit_code, show=show)

    def acknowledged(self, site: Site, report: Path, name: str) -> None:
        answer = self.paper(name)
        self.vendor.run(
            "ack", "issue", str(report), "--output", str(answer), keys=True, show=("verdict", "reason")
        )
        site.run("usage", "acknowledge", str(answer), show=("verdict", "next one by"))

    def billed(self, month: str, *reports: Path) -> None:
        """Bill a month and compare it with what was reckoned by hand."""
        said = self.vendor.quietly("rate", "--month", month, *(str(report) for report in reports))
        self.telling.command("vendor   ", ["lotabots-vendor", "rate", "--month", month, "REPORT…"])
        order = [site.appliance.appliance_id for site in (self.east, self.west)]
        lines = sorted(
            (json.loads(line) for line in said.out.splitlines()),
            key=lambda line: order.index(line["appliance"]),
        )
        self.telling.came(table(lines, self.names()))
        for site in (self.east, self.west):
            own = [line for line in lines if line["appliance"] == site.appliance.appliance_id]
            if own:
                total = sum((Decimal(line["amount"]) for line in own), Decimal(0))
                expected = EXPECTED[site.name, month]
                self.telling.proved(
                    f"{month} of {site.name}: {total}, as reckoned by hand", total == expected
                )

    def names(self) -> dict[str, str]:
        """Appliances and organisations by id."""
        named = {site.appliance.appliance_id: site.name for site in (self.east, self.west)}
        return {**named, self.organisations["east"]: "archive", self.organisations["west"]: "research"}


def table(lines: list[dict[str, str]], names: dict[str, str]) -> list[str]:
    """Lines of a bill for people."""
    head = ("appliance", "organisation", "component", "step", "model", "raw_quantity", "unit_price", "amount")
    rows = [head, *(tuple(_cell(line, name, names) for name in head) for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if i >= 5 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cell(line: dict[str, str], name: str, names: dict[str, str]) -> str:
    value = str(line.get(name) or "-")
    return names.get(value, value)


def main() -> int:
    """Walk, and say whether everything was as it should be."""
    parser = argparse.ArgumentParser(prog="billing-walk")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the files here (a new folder)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put each step's text into this page")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if given.keep is None:
        with tempfile.TemporaryDirectory(prefix="billing-walk-") as folder:
            return _walk(Path(folder), given.page)
    if given.keep.exists():
        print(f"billing-walk: {given.keep} exists already: give a new folder", file=sys.stderr)
        return 2
    given.keep.mkdir(parents=True)
    return _walk(given.keep.resolve(), given.page)


def _walk(folder: Path, page: Path | None) -> int:
    walk = Walk(folder)
    try:
        for act in (
            walk.begin, walk.activate, walk.september, walk.rotate_and_upgrade, walk.copy_a_disk,
            walk.set_the_clock_back, walk.overdue, walk.october, walk.late_answers,
            walk.bills, walk.afterwards,
        ):  # fmt: skip
            act()
    except WrongResultError as wrong:
        print(f"\nbilling-walk: not so: {wrong}", file=sys.stderr)
        return 1
    print("\neverything is as it should be")
    if page is not None:
        page.write_text(filled(page.read_text(), walk.telling.steps))
    return 0


def filled(page: str, steps: list[list[str]]) -> str:
    """A page with the text of each step between its markers, `<!-- walk: 3 -->` and `<!-- end -->`."""

    def block(found: re.Match[str]) -> str:
        lines = "\n".join(steps[int(found[1]) - 1])
        return f"<!-- walk: {found[1]} -->\n```\n{lines}\n```\n<!-- end -->"

    return re.sub(r"<!-- walk: (\d+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())

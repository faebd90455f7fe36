"""The state of a platform as a page of HTML, which loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from platform_status import Alert, Section, Status, budget_word, certificate_word, moment, span, verified

# Seconds after which a browser asks again, if its user wants that, and after which what it got is old. A page that
# renews itself unasked makes who reads it slowly, or with a screen reader, lose the place.
REFRESH_SECONDS = 30
REFRESHING = f"every={REFRESH_SECONDS}"
OLD_SECONDS = 90

# Words say how something is; signs and colours only repeat it.
SIGNS = {"good": "✓", "look": "!", "bad": "✗"}
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d0d7de; --faint: #57606a;
  --good: #116329; --look: #7d4e00; --bad: #b3151f; --link: #0550ae }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #3d444d; --faint: #9198a1;
  --good: #4ac26b; --look: #d9a62e; --bad: #ff8078; --link: #79b8ff } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { margin: 0; font-size: 1.4rem } h2 { margin: 2rem 0 .5rem; font-size: 1.15rem }
a { color: var(--link) }
.verdict { margin: .75rem 0; padding: .6rem .8rem; border: 2px solid; border-radius: .4rem; font-weight: 600 }
.verdict ul { margin: .3rem 0 0; padding-left: 1.2rem }
table { width: 100%; table-layout: fixed; border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { padding-bottom: .3rem; text-align: left; color: var(--faint) }
th, td { padding: .35rem .5rem .35rem 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top }
th { font-weight: 600 } th p, th small { font-weight: 400 } thead th:first-child { width: 46% }
thead th { border-top: 0; color: var(--faint); font-size: .9rem }
p { margin: .4rem 0 } .faint { color: var(--faint) } small { display: block; color: var(--faint) }
.good { color: var(--good) } .look { color: var(--look) } .bad { color: var(--bad) }
"""
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
)
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Cell = str  # HTML: what somebody else has written has gone through `escape`


def page(name: str, status: Status | None, now: float, query: str = "") -> str:
    """Return the page of the platform `name`; no status is one that nobody has gathered yet.

    With REFRESHING as its query it renews itself.
    """
    level, verdict = _verdict(status, now)
    main = "" if status is None else "".join(_sections(status))
    taken = "nothing was learned yet"
    if status is not None:
        taken = f"as of {_time(status.taken)}, {_age(status, now)} old when you asked"
    refresh, again = "", f'<a href="/">ask again</a>, <a href="/?{REFRESHING}">ask every {REFRESH_SECONDS} seconds</a>'
    if query == REFRESHING:
        refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">\n'
        again = f'asked again every {REFRESH_SECONDS} seconds, <a href="/">stop that</a>'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
{refresh}<title>{SIGNS[level]} {escape(name)}: status</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Status of {escape(name)}</h1>
<p class="faint">{taken}; {again}</p>
</header>
<main>
{verdict}{main}
</main>
</body>
</html>
"""


def _verdict(status: Status | None, now: float) -> tuple[str, str]:
    """How it all is, and that in HTML."""
    if status is None:
        level, title, reasons = "look", "Not known yet", ["this has just started, and nobody has answered"]
    else:
        old = f"what is shown is {_age(status, now)} old: the page cannot renew it"
        wrong = [*([old] if now - status.taken > OLD_SECONDS else []), *status.wrong()]
        reasons = [*wrong, *status.doubtful()]
        level = "bad" if wrong else "look" if reasons else "good"
        title = {"bad": "Not well", "look": "Worth a look", "good": "All is well"}[level]
    listed = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    inside = f'<span aria-hidden="true">{SIGNS[level]}</span> {title}' + (f"<ul>{listed}</ul>" if listed else "")
    return level, f'<section class="verdict {level}" aria-label="In all">{inside}</section>\n'


def _sections(status: Status) -> Iterable[str]:
    now, services = status.taken, [one for one in status.workloads.rows if one.service]
    others = [one for one in status.workloads.rows if not one.service]
    told = "" if status.told is not False else "<p>Nobody is told of alerts: no receiver is set.</p>"
    yield _section(
        *("alerts", "Open alerts", "What is wrong, the worst first", ("Alert", "How bad", "For")),
        *(status.alerts, [_alert(alert, now) for alert in status.alerts.rows]),
        *("No alert is open.", told),
    )
    yield _section(
        *("nodes", "Nodes", "The hosts of the cluster", ("Node", "State", "Version")),
        *(status.nodes, [(escape(n.name), _ready(n.missing), escape(n.version)) for n in status.nodes.rows]),
    )
    for slug, title, caption, chosen in (
        ("services", "Services", "What users meet", services),
        ("platform", "Platform", "What the services stand on", others),
    ):
        rows = [(f"{escape(w.name)}<small>{escape(w.namespace)}</small>", _ready(w.missing)) for w in chosen]
        yield _section(slug, title, caption, ("Workload", "State"), status.workloads, rows)
    looking = f"; Prometheus looks back {span(status.remembered)}" if 0 < status.remembered < 30 * 86400 else ""
    yield _section(
        *("budgets", "Error budgets", f"What may still fail of 30 days{looking}", ("Service", "Promised", "Budget")),
        status.budgets,
        [
            (escape(b.service), f"{b.promised * 100:.6g} %", _word(*budget_word(b), otherwise="look"))
            for b in status.budgets.rows
        ],
    )
    yield _section(
        *("backups", "Backups", "Backups of Postgres", ("What", "When")),
        *(status.backups, list(_backups(status)), "Nobody makes backups."),
    )
    yield _section(
        *(
            "certificates",
            "Certificates",
            "What cert-manager renews, the first to end first",
            ("Name", "State", "Ends"),
        ),
        status.certificates,
        [
            (
                f"{escape(c.name)}<small>{escape(c.namespace)}</small>",
                _word(*certificate_word(c, now), otherwise="bad" if c.ends <= now else "look"),
                _time(c.ends),
            )
            for c in status.certificates.rows
        ],
        "There is none.",
    )


def _section(
    slug: str,
    title: str,
    caption: str,
    columns: Sequence[str],
    known: Section[Any],
    rows: Sequence[Sequence[Cell]],
    empty: str = "There is none.",
    more: str = "",
) -> str:
    """One section with a table; the first cell of a row names it."""
    why = f'<p class="bad">{SIGNS["bad"]} Not known: {escape(known.problem)}</p>' if known.problem else ""
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"
    content = table if rows else "" if why else f"<p>{empty}</p>"
    return f'<section aria-labelledby="{slug}"><h2 id="{slug}">{title}</h2>\n{why}{content}{more}</section>\n'


def _alert(alert: Alert, now: float) -> tuple[Cell, Cell, Cell]:
    name = escape(alert.name)
    # It may be a path of the checkout, or anything else that somebody has written.
    if alert.runbook.startswith(("https://", "http://")):
        name = f'<a href="{escape(alert.runbook)}" rel="noreferrer">{name}</a>'
    elif alert.runbook:
        name += f"<small>{escape(alert.runbook)}</small>"
    name += f"<p>{escape(alert.summary)}</p><small>{escape(alert.place)}</small>"
    level = "look" if alert.quiet or alert.severity != "critical" else "bad"
    bad = _word(False, alert.severity, otherwise=level) + (
        f"<small>{escape(alert.quiet)}</small>" if alert.quiet else ""
    )
    return name, bad, f"{span(now - alert.since)}<small>since {_time(alert.since)}</small>"


def _backups(status: Status) -> Iterable[tuple[Cell, Cell]]:
    for backups in status.backups.rows:
        good = verified(backups, status.taken)
        for word, when, fine in (
            ("Last one shown to restore", backups.verified, good),
            ("Last one made", backups.completed, backups.completed > 0),
        ):
            ago = f"{span(status.taken - when)} ago" if when else "never"
            late = ", which is late" if when and not fine else ""
            yield word, _word(fine, ago + late, otherwise="bad") + (f"<small>{_time(when)}</small>" if when else "")


def _ready(missing: str) -> Cell:
    return _word(not missing, missing or "ready", otherwise="bad")


def _word(good: bool, word: str, otherwise: str) -> Cell:
    level = "good" if good else otherwise
    return f'<span class="{level}"><span aria-hidden="true">{SIGNS[level]}</span> {escape(word)}</span>'


def _age(status: Status, now: float) -> str:
    return span(now - status.taken)


def _time(seconds: float) -> str:
    found = moment(seconds)
    if not found:
        return "at no time that there is"
    return f'<time datetime="{found.isoformat(timespec="seconds")}">{found:%Y-%m-%d %H:%M:%S} UTC</time>'

"""Look of the inspection's page: inline CSS for light and dark, and the colours that its plots share with it."""

from __future__ import annotations

COLOURS = ("#2563a8", "#d9772b", "#2f8f62", "#8a4f9e", "#b8860b", "#c0476b")  # of the largest shards, in this order
INK, MUTED, RULE = "#22303c", "#5f6b78", "#e4e7eb"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule"} | {colour: f"--c{i}" for i, colour in enumerate(COLOURS)}

_CSS = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --code: #f3f5f7; --token: #dbe7f5; --mark: #8a4f9e;
  --bad: #c0476b; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ed; --muted: #97a3b0; --rule: #313a44; --paper: #14181d;
  --card: #1c2229; --code: #20262e; --token: #2d3e52; --mark: #d0a3df; --bad: #f08ca8; DARK } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 0 1.5rem 4rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.35rem; margin: 1.4rem 0 .2rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; overflow-wrap: anywhere }
p { margin: 0 0 .5rem } .note { color: var(--muted); font-size: 13.5px; max-width: 60rem; margin-top: .5rem }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: 13.5px; margin-bottom: .6rem } a { color: var(--c0) }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .6rem 1rem;
  overflow-x: auto }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; margin: .8rem 0 }
.facts div { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .4rem .8rem }
.facts b { display: block; font-size: 1.1rem; overflow-wrap: anywhere } .facts span { color: var(--muted);
  font-size: 12.5px }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top }
th { font-weight: 600; color: var(--muted); white-space: nowrap }
th:first-child, td:first-child, .words th, .words td { text-align: left }
tr:last-child td { border-bottom: 0 } td { white-space: nowrap }
.words td { white-space: normal; overflow-wrap: break-word; min-width: 6rem; max-width: 24rem }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em;
  background: var(--hue, var(--rule)) }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-weight: 600 } figcaption span { font-weight: 400; color: var(--muted);
  font-size: 13px }
svg { display: block; width: 100%; height: auto }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px }
pre { margin: .2rem 0 .9rem; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--card);
  border: 1px solid var(--rule); border-radius: 6px; padding: .5rem .7rem; max-height: 24rem;
  overflow-y: auto; line-height: 1.65 }
.t { unicode-bidi: isolate; border-radius: 3px } .t:nth-child(even) { background: var(--token) }
.e { color: var(--bad) } .m { color: var(--mark); font-weight: 600 } .n { color: var(--muted) }
.tokens { display: flex; flex-wrap: wrap; gap: .3rem } .tokens span { background: var(--code); border-radius: 4px;
  padding: .05rem .4rem; font-size: 13px; white-space: pre-wrap; overflow-wrap: anywhere }
.tokens i { font-style: normal; color: var(--muted); font-size: 12px }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere } details { margin-bottom: .7rem }
.label { color: var(--muted); font-size: 12.5px }
@media (max-width: 700px) { body { padding: 0 .8rem 3rem } }
"""


def stylesheet() -> str:
    """The CSS; in the dark the colours of shards are mixed with white."""
    plain = f"--ink: {INK}; --muted: {MUTED}; --rule: {RULE}; "
    light = plain + " ".join(f"--c{i}: {colour};" for i, colour in enumerate(COLOURS))
    dark = " ".join(f"--c{i}: color-mix(in srgb, {colour} 60%, white);" for i, colour in enumerate(COLOURS))
    return _CSS.replace("LIGHT", light).replace("DARK", dark)

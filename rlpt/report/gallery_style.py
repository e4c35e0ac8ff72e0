"""Look and behaviour of the gallery's page: inline CSS for light and dark, and a little plain JavaScript."""

from __future__ import annotations

from rlpt.report.style import COLOURS, INK, RULE

_CSS = """
:root { color-scheme: light dark; --ink: INK; --muted: #5f6b78; --rule: RULE; --paper: #f6f7f9; --card: #fff;
  --code: #f3f5f7; --good: #2f8f62; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ed; --muted: #97a3b0; --rule: #313a44; --paper: #14181d;
  --card: #1c2229; --code: #262d36; --good: #69c79a; DARK } }
* { box-sizing: border-box }
html { scroll-behavior: smooth; scroll-padding-top: 9rem }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1, h2, h3, h4, p { margin: 0 }
a { color: inherit; text-decoration: none }
a:hover { text-decoration: underline }
code, pre, .steps, .episode { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 13px }
code { background: var(--code); border-radius: 4px; padding: 0 .25em }
button { font: inherit; font-size: 13px; color: var(--muted); background: var(--card); border: 1px solid var(--rule);
  padding: .15rem .6rem; cursor: pointer }
button[aria-pressed=true] { color: var(--card); background: var(--ink); border-color: var(--ink) }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 1px }
header { position: sticky; top: 0; z-index: 1; background: var(--paper); border-bottom: 1px solid var(--rule);
  padding: .8rem 1.5rem .7rem }
header h1 { font-size: 1.35rem; display: inline; margin-right: .8rem }
header p { display: inline; color: var(--muted) }
header b { color: var(--ink) }
.tools { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin-top: .6rem }
.tools input { font: inherit; flex: 1 1 12rem; max-width: 22rem; color: inherit; background: var(--card);
  border: 1px solid var(--rule); border-radius: 6px; padding: .2rem .6rem }
.group { display: inline-flex }
.group button, .tabs button { margin-left: -1px }
.group button:first-child, .tabs button:first-child { border-radius: 6px 0 0 6px; margin-left: 0 }
.group button:last-child, .tabs button:last-child { border-radius: 0 6px 6px 0 }
.page { display: grid; grid-template-columns: 13rem minmax(0, 1fr); gap: 2rem; padding: 0 1.5rem 4rem;
  max-width: 1700px; margin: 0 auto }
nav details { position: sticky; top: 6.5rem; max-height: calc(100vh - 7rem); overflow-y: auto; padding: 1rem 0 }
nav summary { display: none }
.field { margin-bottom: .8rem; font-size: 13.5px }
.field a { display: block; color: var(--muted); padding: .05rem 0 .05rem .7rem; border-left: 2px solid var(--rule);
  overflow: hidden; text-overflow: ellipsis }
.field a.title { color: var(--hue, inherit); font-weight: 600; border-color: var(--hue, var(--rule)) }
section { padding-top: 1.4rem }
h2 { font-size: 1.15rem; color: var(--hue, inherit); margin-bottom: .6rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(27rem, 100%), 1fr)); gap: 1rem;
  align-items: start }
article { background: var(--card); border: 1px solid var(--rule); border-top: 3px solid var(--hue); border-radius: 8px;
  padding: .8rem 1rem 1rem; min-width: 0 }
article:target { outline: 2px solid var(--hue) }
article > p { margin-top: .5rem; color: var(--muted); font-size: 14px }
article > p.lead { color: inherit }
.note { color: var(--muted); font-size: 13.5px; max-width: 62rem; padding-top: 1.4rem }
h3 { display: flex; justify-content: space-between; align-items: baseline; gap: 1rem; font-size: 1.05rem }
.rate { font-weight: 400; font-size: 13px; color: var(--muted); white-space: nowrap }
.rate b { color: var(--ink) }
article > p.badges { display: flex; flex-wrap: wrap; gap: .35rem; margin-top: .25rem }
.badge { font-size: 12px; border: 1px solid var(--rule); border-radius: 99px; padding: 0 .55rem }
details { margin-top: .5rem; font-size: 13px; color: var(--muted) }
summary { cursor: pointer }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .4rem 0; font-size: 12.5px }
th, td { padding: .15rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap }
th { font-weight: 600; text-align: left }
.why td { text-align: left; white-space: normal }
svg { display: block; width: 100%; max-width: 27rem; margin: .6rem 0 .7rem }
svg text { font-size: 10.5px; fill: var(--muted) }
svg line { stroke: var(--rule) }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke: currentColor }
svg circle { fill: currentColor }
svg .reference { color: var(--c0) }
svg .random { color: var(--c1) }
svg g text { fill: currentColor; font-weight: 600 }
h4 { font-size: 13px; color: var(--muted); font-weight: 600; margin-top: .8rem }
.ready h4 { display: none }
.tabs { display: none }
.ready .tabs { display: flex }
.example { margin-top: .6rem }
.part { margin-top: .45rem }
.label { display: block; font-size: 12px; color: var(--muted) }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--code); border-radius: 6px;
  padding: .35rem .6rem; max-height: 16rem; overflow-y: auto }
.answer { color: var(--good); font-weight: 600 }
ol.steps, ul.steps, .episode { list-style: none; margin: 0; padding: 0; max-height: 16rem; overflow-y: auto }
.steps { display: flex; flex-wrap: wrap; gap: .25rem }
.steps li { background: var(--code); border-radius: 4px; padding: .05rem .4rem; overflow-wrap: anywhere }
.steps li.best { color: var(--good); font-weight: 600 }
.steps i, .episode i { font-style: normal; font-weight: 400; color: var(--muted); font-size: 12px }
.episode { max-width: 24rem }
.episode li { padding: .15rem .6rem; margin: .2rem 0; border-radius: 6px; width: fit-content; max-width: 88%;
  overflow-wrap: anywhere; white-space: pre-wrap }
.episode .seen { background: var(--code) }
.episode .turn { margin-left: auto; color: var(--good); font-weight: 600; border: 1px solid var(--rule) }
#none { padding: 2rem 0; color: var(--muted) }
[hidden] { display: none !important }
@media (max-width: 820px) {
  html { scroll-padding-top: 1rem }
  header { position: static; padding: .8rem 1rem }
  .page { display: block; padding: 0 1rem 3rem }
  nav details { position: static; max-height: none; padding: .8rem 0 0 }
  nav summary { display: list-item; font-weight: 600 }
  .field { display: flex; flex-wrap: wrap; gap: .1rem .2rem }
  .field a { border: 0; padding: .15rem .5rem .15rem 0 }
  .field a.title { width: 100% }
}
@media print { header, nav details { position: static } .tools, nav { display: none } }
"""

SCRIPT = """
(() => {
  const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
  const press = (buttons, chosen) => buttons.forEach(b => b.setAttribute('aria-pressed', b === chosen));
  const cards = all('article'), search = document.getElementById('search'), filters = all('[data-filter]');
  document.body.classList.add('ready');
  if (innerWidth <= 820) all('nav details').forEach(d => d.open = false);

  const showTab = (card, index) => {
    const buttons = all('[data-tab]', card), at = Math.min(index, buttons.length - 1);
    press(buttons, buttons[at]);
    all('.example', card).forEach((example, i) => example.hidden = i !== at);
  };
  const showAll = button => {
    press(all('[data-all]'), button);
    cards.forEach(card => showTab(card, +button.dataset.all));
  };
  const filter = () => {
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const pressed = filters.filter(b => b.getAttribute('aria-pressed') === 'true').map(b => b.dataset.filter);
    let shown = 0;
    cards.forEach(card => {
      const fits = words.every(word => card.dataset.search.includes(word)) &&
        pressed.every(value => card.dataset.kind === value || card.dataset.source === value);
      card.hidden = !fits;
      shown += fits;
      const link = document.querySelector('nav a[href="#' + card.id + '"]');
      if (link) link.hidden = !fits;
    });
    all('section').forEach(s => s.hidden = s.querySelector('article') && !s.querySelector('article:not([hidden])'));
    all('nav .field').forEach(f => f.hidden = f.querySelector('a:not(.title)') &&
      !f.querySelector('a:not(.title):not([hidden])'));
    document.getElementById('shown').textContent = shown;
    document.getElementById('none').hidden = shown > 0;
  };

  document.addEventListener('click', event => {
    const button = event.target.closest('button');
    if (!button) return;
    if (button.dataset.tab) showTab(button.closest('article'), +button.dataset.tab);
    if (button.dataset.all) showAll(button);
    if (button.dataset.filter) {
      button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true');
      filter();
    }
  });
  search.addEventListener('input', filter);
  document.addEventListener('keydown', event => {
    if (event.key === '/' && event.target !== search) { event.preventDefault(); search.focus(); }
    if (event.key === 'Escape' && event.target === search) { search.value = ''; filter(); }
  });
  showAll(document.querySelector('[data-all="1"]'));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView({ behavior: 'instant' });
})();
"""


def stylesheet() -> str:
    """The CSS, in the colours of the plots; in the dark they are mixed with white."""
    light = " ".join(f"--c{i}: {colour};" for i, colour in enumerate(COLOURS))
    dark = " ".join(f"--c{i}: color-mix(in srgb, {colour} 60%, white);" for i, colour in enumerate(COLOURS))
    return _CSS.replace("INK", INK).replace("RULE", RULE).replace("LIGHT", light).replace("DARK", dark)

"""How the page looks, by day and by night."""

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;--ink:#24292f;--paper:#fff;--soft:#f4f5f7;--line:#d8dbe0;--error:#c62828;
--warning:#b26a00;--note:#2563a8}
@media(prefers-color-scheme:dark){:root{--ink:#e4e6ea;--paper:#17191d;--soft:#21242a;--line:#3a3f47;--error:#ff8a80;
--warning:#ffb74d;--note:#82b8f5}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1100px;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{margin-top:2.2rem;border-bottom:1px solid var(--line)}
h3{margin:.3rem 0;font-size:1.05rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}h3 code{opacity:.6;font-weight:normal}
pre{background:var(--soft);padding:.7rem 1rem;border-radius:6px;overflow:auto;max-height:22rem}
.card{border:1px solid var(--line);border-left-width:5px;border-radius:6px;padding:.6rem 1rem;margin:1rem 0}
.card p{margin:.4rem 0}
span.error,span.warning,span.note{font-weight:600}
span.error{color:var(--error)}span.warning{color:var(--warning)}span.note{color:var(--note)}
.card.error{border-left-color:var(--error)}.card.warning{border-left-color:var(--warning)}
.card.note{border-left-color:var(--note)}
.gallery,.row{display:flex;flex-wrap:wrap;gap:.8rem;margin:.8rem 0}figure{margin:0;max-width:300px}
.row figure{max-width:none}
figure img{max-width:100%;display:block;border-radius:4px}
figcaption{font-size:.8rem;overflow-wrap:anywhere;opacity:.8}
.wide{overflow-x:auto}table{border-collapse:collapse;white-space:nowrap}
td,th{padding:.25rem .8rem .25rem 0;text-align:left;border-bottom:1px solid var(--line)}
.swatch{display:inline-block;width:.9em;height:.9em;border-radius:3px;margin-right:.5em;vertical-align:-.1em}
.bar{display:inline-block;height:.7em;background:var(--note);opacity:.7}
svg.bars rect,svg.dots circle{fill:var(--note);opacity:.75}svg.dots .frame{fill:none;stroke:var(--line)}
svg.curves{background:var(--soft);border-radius:4px}svg{vertical-align:middle}
small{opacity:.7}
"""

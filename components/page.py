"""The look that every HTML artifact shares: one self-contained page, light or dark as the reader's system is."""

from html import escape

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f7f9;--ink:#1c2330;--ink-soft:#667085;--line:#dfe3ea;
--accent:#1f6feb;--good:#1a7f4b;--bad:#c62f3a;--warn:#a86a00}
@media(prefers-color-scheme:dark){:root{--paper:#14181f;--panel:#1c222c;--ink:#e7eaf0;--ink-soft:#98a2b3;
--line:#303846;--accent:#5b9bff;--good:#4cc38a;--bad:#ff6b74;--warn:#e0a43a}}
*{box-sizing:border-box}body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:62rem;background:var(--paper);
color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.25rem 0 .6rem}
p{margin:.4rem 0}.soft{color:var(--ink-soft)}.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.4rem .7rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--ink-soft);font-size:.85rem}td.n,th.n{text-align:right}
code,pre{font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;
white-space:pre-wrap;word-break:break-word}
figure{margin:.8rem 0 1.4rem}figcaption{display:flex;flex-wrap:wrap;gap:.3rem 1rem;align-items:baseline;
font-size:.85rem;margin-bottom:.2rem}figcaption i{display:inline-block;width:.8rem;height:.2rem;margin-right:.35rem;
vertical-align:middle}figcaption em{margin-left:auto;color:var(--ink-soft);font-style:normal}
svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--ink-soft)}svg .grid{stroke:var(--line)}
.badge{display:inline-block;padding:.1rem .6rem;border-radius:1rem;font-size:.85rem;font-weight:600;
border:1px solid currentColor}.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(12rem,1fr));gap:.8rem}
.facts>div{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.facts b{display:block;font-size:1.15rem;overflow-wrap:anywhere}.scroll{overflow-x:auto}
"""


def page(title: str, body: str) -> str:
    """Wrap a body in the shared page; the title is escaped, the body is HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )

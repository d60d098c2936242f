"""How the pages look, and the little that they do: copy a command, filter the flags, choose light or dark."""

CSS = """
:root{--bg:#fff;--card:#f6f7f9;--line:#d3d8e0;--text:#1b222c;--muted:#525d6d;--accent:#2457a6;--serious:#b3261e;
--warning:#8a5200;--info:#2a64a3;--good:#2e6b3a;--hole:#e3e6eb;--mark:#e0218a}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]){--bg:#12161c;--card:#1b2129;--line:#39424f;
--text:#e8ebf0;--muted:#a9b3c1;--accent:#8db8f5;--serious:#ff9088;--warning:#f2b85c;--info:#86baf0;--good:#86cf95;
--hole:#2a313b;--mark:#ff6fbe;color-scheme:dark}}
:root[data-theme=dark]{--bg:#12161c;--card:#1b2129;--line:#39424f;--text:#e8ebf0;--muted:#a9b3c1;--accent:#8db8f5;
--serious:#ff9088;--warning:#f2b85c;--info:#86baf0;--good:#86cf95;--hole:#2a313b;--mark:#ff6fbe;color-scheme:dark}
:root[data-theme=light]{color-scheme:light}
*{box-sizing:border-box}
html{scroll-padding-top:4rem}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main,footer{max-width:76rem;margin:0 auto;padding:1rem}
footer{border-top:1px solid var(--line);color:var(--muted);font-size:.9rem}
header{position:sticky;top:0;z-index:2;background:var(--bg);border-bottom:1px solid var(--line)}
.bar{max-width:76rem;margin:0 auto;padding:.5rem 1rem;display:flex;gap:1rem;align-items:center}
nav{flex:1;display:flex;gap:.25rem 1rem;overflow-x:auto;white-space:nowrap}
a{color:var(--accent)}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;z-index:3;background:var(--bg)}
h1{font-size:1.7rem;line-height:1.2;margin:.5rem 0 .25rem}h2{font-size:1.3rem;margin:2.2rem 0 .6rem}
h3{font-size:1.05rem;margin:1.4rem 0 .5rem}.layers h3,.card h3,.chain h3{margin-top:0}
h4{font-size:.95rem;margin:0 0 .15rem}
p{max-width:46rem;margin:.4rem 0}.muted{color:var(--muted)}.small{font-size:.85rem}
.lead{font-size:1.12rem;max-width:52rem}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;width:100%;font-size:.9rem}
caption{text-align:left;color:var(--muted);padding:.2rem 0 .4rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .7rem .4rem 0;border-bottom:1px solid var(--line)}
th{font-weight:600}td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td:not(.wrap) code{overflow-wrap:normal}td.wrap{min-width:14rem;overflow-wrap:anywhere}
code{font:.85em/1.5 ui-monospace,SFMono-Regular,Consolas,monospace;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.9rem}
.layers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,12.5rem),1fr));gap:.8rem;padding:0;
list-style:none}
.card,.layers>li{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem;min-width:0}
.card svg,.thumbs img{display:block;width:100%;height:auto}
.layers dl{margin:.4rem 0 0;font-size:.85rem}.layers dt{color:var(--muted)}
.layers dd{margin:0 0 .35rem;font-variant-numeric:tabular-nums}
.severity{white-space:nowrap;font-weight:600}
.serious,.error{color:var(--serious)}.warning{color:var(--warning)}.info{color:var(--info)}.no-flags{color:var(--good)}
.not-measured,.not-searched,.unknown{color:var(--muted)}
.command{display:flex;gap:.5rem;align-items:flex-start;margin:.25rem 0}
.command code{flex:1;background:var(--bg);border:1px solid var(--line);border-radius:5px;padding:.2rem .45rem;
white-space:pre-wrap}
button,select{font:inherit;font-size:.85rem;color:var(--text);background:var(--card);border:1px solid var(--line);
border-radius:5px;padding:.2rem .6rem;cursor:pointer}
button:focus-visible,a:focus-visible,select:focus-visible,.scroll:focus-visible,summary:focus-visible{
outline:2px solid var(--accent);outline-offset:2px}
.js{display:none}[data-ready] .js{display:inline-block}
details{margin:.3rem 0}summary{cursor:pointer;color:var(--accent)}
svg text{fill:var(--text);font:11px system-ui,-apple-system,"Segoe UI",sans-serif}
svg .soft{fill:var(--muted)}svg .axis{stroke:var(--muted);fill:none}svg .grid{stroke:var(--line);fill:none}
svg .curve{stroke:var(--accent);fill:none;stroke-width:1.6}svg .band{fill:var(--accent);opacity:.18}
svg .dot{fill:var(--accent)}svg .whisker{stroke:var(--accent);stroke-width:2}svg .hole{fill:var(--hole)}
svg .bad .dot{fill:var(--serious)}svg .bad .whisker{stroke:var(--serious)}
svg .outline{fill:none;stroke:var(--mark);stroke-width:2}svg .outline.other{stroke-dasharray:5 3}
svg .halo{fill:none;stroke:#fff;stroke-width:4;opacity:.75}
svg image{image-rendering:pixelated}
.thumbs{display:grid;grid-template-columns:repeat(3,1fr);gap:.3rem;margin:.4rem 0}.thumbs figure{margin:0}
.thumbs figcaption{font-size:.75rem;color:var(--muted)}.places{counter-reset:place}
.chain{list-style:none;padding:0;display:flex;gap:1.6rem;flex-wrap:wrap}
.chain li{position:relative;flex:1 1 11rem;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:.7rem}
.chain li+li::before{content:"←";position:absolute;left:-1.4rem;top:40%;color:var(--muted);font-size:1.1rem}
.chain li.differs{border-color:var(--warning)}
.chain li.cause{border:3px solid var(--serious)}
.chain .enters{display:inline-block;background:var(--serious);color:var(--bg);font-weight:600;font-size:.8rem;
border-radius:4px;padding:.05rem .4rem;margin-bottom:.3rem}
.proposals{display:grid;gap:.8rem}.proposals .card{max-width:60rem}figure{margin:.5rem 0}
.verdict{border-left:5px solid var(--accent);background:var(--card);padding:.7rem 1rem;border-radius:0 8px 8px 0;
max-width:60rem}
.verdict.artefact{border-color:var(--serious)}.verdict.biology{border-color:var(--good)}
@media (max-width:40rem){.chain{flex-direction:column}.chain li+li::before{content:"↑";left:1rem;top:-1.5rem}}
@media print{header,.js,[data-ready] .js{display:none}}
"""

SCRIPT = """
(function(){
"use strict";
var root=document.documentElement;
function copy(button){
  var text=button.parentNode.querySelector("code").textContent,was=button.textContent;
  function said(word){button.textContent=word;setTimeout(function(){button.textContent=was},1500)}
  function old(){
    var area=document.createElement("textarea");area.value=text;document.body.appendChild(area);area.select();
    var ok=document.execCommand("copy");area.remove();said(ok?"Copied":"Select and copy");
  }
  if(navigator.clipboard){navigator.clipboard.writeText(text).then(function(){said("Copied")},old)}else{old()}
}
function filter(){
  var chosen=document.querySelector("select.filter");
  if(!chosen){return}
  var shown=0;
  document.querySelectorAll("tr[data-severity]").forEach(function(row){
    var on=chosen.value==="all"||row.dataset.severity===chosen.value;
    row.hidden=!on;if(on){shown+=1}
  });
  document.querySelector(".shown").textContent=shown+" shown";
}
document.addEventListener("click",function(event){
  var button=event.target.closest("button");
  if(!button){return}
  if(button.classList.contains("copy")){copy(button)}
  if(button.classList.contains("theme")){
    var now=root.dataset.theme||(matchMedia("(prefers-color-scheme: dark)").matches?"dark":"light");
    root.dataset.theme=now==="dark"?"light":"dark";
  }
});
document.addEventListener("change",function(event){if(event.target.matches("select.filter")){filter()}});
filter();
root.dataset.ready="1";
})();
"""

"""The page at `/docs`: shows `/openapi.json` in any browser, offline.

FastAPI's own page loads its scripts from a public CDN; a hospital network has none.
"""

__all__ = ["CONTENT_SECURITY_POLICY", "PAGE"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Endo-CLIP API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
h2{border-bottom:1px solid #8886;margin-top:2.5rem}h2 b{font-size:.8rem;margin-right:.6rem;
background:#26617f;color:#fff;border-radius:.3rem;padding:.15rem .45rem;vertical-align:middle}
pre{overflow:auto;background:#8882;padding:.7rem;border-radius:.3rem;font-size:.85rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.25rem .6rem .25rem 0;border-bottom:1px solid #8884}summary{cursor:pointer;padding:.2rem 0}
code{font-size:.9em}
</style></head><body><h1 id="title">Endo-CLIP API</h1><p id="about"></p>
<p>Machine-readable: <a href="openapi.json">openapi.json</a></p>
<nav><ul id="index"></ul></nav><main id="main"></main><noscript>See openapi.json.</noscript>
<script>
'use strict';
const make=(tag,text,parent)=>{const e=document.createElement(tag);
 if(text!==undefined)e.textContent=text;if(parent)parent.append(e);return e};
let schemas={};
const deref=s=>s&&s.$ref?schemas[s.$ref.split('/').pop()]:s;
function kind(s,depth){s=s||{};if(s.$ref)return s.$ref.split('/').pop();
 const many=s.anyOf||s.oneOf;if(many)return many.map(x=>kind(x,depth)).join(' | ');
 if(s.enum)return s.enum.map(x=>JSON.stringify(x)).join(' | ');
 if('const' in s)return JSON.stringify(s.const);
 if(s.type==='array')return 'list of '+kind(s.items||(s.prefixItems||[])[0],depth);
 return (s.type||'any')+(s.format?' ('+s.format+')':'')}
function example(s,depth){s=deref(s)||{};if(depth>7)return null;
 if(s.examples)return s.examples[0];if('default' in s&&s.default!==null)return s.default;
 const many=s.anyOf||s.oneOf;if(many)return example(many[0],depth+1);
 if(s.enum)return s.enum[0];if('const' in s)return s.const;
 if(s.type==='object'||s.properties){const o={};
  for(const [k,v] of Object.entries(s.properties||{}))o[k]=example(v,depth+1);return o}
 if(s.type==='array')return s.prefixItems?s.prefixItems.map(x=>example(x,depth+1))
  :[example(s.items,depth+1)];
 return {string:s.format==='binary'?'<file>':'…',integer:0,number:0.5,boolean:false}[s.type]??null}
function fields(s,parent){s=deref(s)||{};const rows=Object.entries(s.properties||{});
 if(!rows.length)return;const t=make('table',undefined,parent),h=make('tr',undefined,t);
 for(const c of ['field','type',''])make('th',c,h);
 for(const [name,v] of rows){const r=make('tr',undefined,t);
  make('code',name+((s.required||[]).includes(name)?' *':''),make('td',undefined,r));
  make('td',kind(v),r);make('td',(deref(v)||{}).description||v.description||'',r)}}
function body(title,content,parent){for(const [type,m] of Object.entries(content||{})){
  const d=make('details',undefined,parent);make('summary',title+' · '+type,d);
  if((m.schema||{}).format==='binary'){make('p','The image file itself.',d);continue}
  fields(m.schema,d);make('pre',JSON.stringify(example(m.schema,0),null,1),d)}}
function operation(path,method,op,main,index){
 const id=method+path.replace(/[^a-z0-9]+/gi,'-');
 const link=make('a',method.toUpperCase()+' '+path,make('li',undefined,index));
 link.href='#'+id;
 const h=make('h2',undefined,main);h.id=id;make('b',method.toUpperCase(),h);
 make('code',path,h);
 make('p',(op.summary||'')+(op.description?' — '+op.description:''),main);
 if(op.parameters&&op.parameters.length){const t=make('table',undefined,main);
  for(const p of op.parameters){const r=make('tr',undefined,t);
   make('code',p.name,make('td',undefined,r));make('td',p.in+', '+kind(p.schema),r);
   make('td',p.description||'',r)}}
 if(op.requestBody)body('Request',op.requestBody.content,main);
 for(const [status,r] of Object.entries(op.responses||{})){
  if(r.content&&Object.keys(r.content).length)body(status+' '+r.description,r.content,main);
  else make('p',status+' '+r.description,main)}}
fetch('openapi.json').then(r=>r.json()).then(doc=>{
 schemas=(doc.components||{}).schemas||{};
 document.getElementById('title').textContent=doc.info.title+' '+doc.info.version;
 document.getElementById('about').textContent=doc.info.description||'';
 const main=document.getElementById('main'),index=document.getElementById('index');
 for(const [path,ops] of Object.entries(doc.paths))
  for(const [method,op] of Object.entries(ops))operation(path,method,op,main,index);
});
</script></body></html>
"""

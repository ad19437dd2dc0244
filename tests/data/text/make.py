#!/usr/bin/env python3
"""Writes cases.json: what Jinja2 itself makes of templates, set up as model templates are rendered.

Needs jinja2 3.1. Each case is [template, text], the text null where Jinja2 refuses. Left out are values that Jinja2
prints as Python objects (generators, views, ranges) and a few things that only Python has."""
import json
import os
import jinja2
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                    extensions=["jinja2.ext.loopcontrols", Generation])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception

# fmt: off
VARIABLES={'a':1,'b':2,'neg':-7,'f':1.5,'s':'Hello World','u':'Grüße 你好 🙂','e':'','l':[3,1,2],'ls':['b','A','c'],'d':{'x':1,'y':'two','items':5},'n':None,'t':True,'fl':False,
 'ld':[{'k':'a','v':2,'n':{'z':1}},{'k':'b','v':1,'n':{'z':0}},{'k':'c'}],'ml':'  line1\nline2\n\n  line3 ','nested':{'l':[1,{'q':[1,2,"x'y"]}]},
 'messages':[{'role':'user','content':'hi <there>'},{'role':'assistant','content':'yo','tool_calls':[{'function':{'name':'f','arguments':{'x':1,'y':[1,2,{'é':'"q"\n'}]}}}]},{'role':'user','content':[{'type':'text','text':'part'}]}]}

# Expressions between bars; each is a case, and each with its neighbour as filter.
EXPRESSIONS=r'''
a + b|a - b * 3|a / b|7 // 2|-7 // 2|neg // 2|neg % 3|7 % -3|2 ** 10|2 ** -1|2**3**2|f * 2|f + a|1e3|1.0|0.1 + 0.2|1e16|1e15|1e-5|123456789.123|a ~ b ~ s|s + u|'a' * 3|[1] * 2|[1] + [2]|(1,2) + (3,)|'x' 'y'|"a\tb\\n\x41\u00e9"|'it\'s'
a == 1|a == 1.0|a == true|s == 'Hello World'|l == [3,1,2]|a != b|a < b <= 2|1 < 3 < 2|'a' < 'b'|[1,2] < [1,3]|'ell' in s|'zz' not in s|3 in l|'x' in d|9 in d|n is none|n == none|none == undefinedx
not a|not e|a and b|e or 'x'|a and e|n or 0 or 'z'|not a == 2|(a if t else b)|'y' if fl|'y' if fl else 'z'|1 if fl else 2 if t else 3
s[0]|s[-1]|s[1:4]|s[::-1]|s[-3:]|s[:-3]|u[0:7]|u[2]|u|length|l[0]|l[-1]|l[1:]|l[::-1]|l[::2]|l[5]|l[:100]|s[10:2]|d['x']|d.x|d.y|d.nope|d['nope']|d.get('x')|d.get('q')|d.get('q', 5)|ld[0].n.z|ld[2].n|ld[0]['k']
s.upper()|s.lower()|u.upper()|s.title()|'heLLo wOrld-foo bar'.title()|'x y'.capitalize()|s.split()|s.split(' ')|'a,b,,c'.split(',')|'a,b,c'.split(',', 1)|'  a  b c '.split()|' a b c '.split(none, 1)|'a b c'.split(maxsplit=1)|'a,b,c'.rsplit(',', 1)|'a b'.rsplit(' ')|'abc'.startswith('ab')|'abc'.endswith('bc')|'abc'.startswith(('x','a'))|'xxaxx'.strip('x')|'xxa'.lstrip('x')|'axx'.rstrip('x')|' a '.strip()|'a\n\n'.rstrip('\n')|'aXbX'.replace('X','yy')|'aXbX'.replace('X','y',1)|'abc'.replace('','-')|s.find('o')|s.rfind('o')|s.find('zz')|s.count('l')|s.count('')|'-'.join(['a','b'])|'12'.isdigit()|'1a'.isalnum()|'ab'.isalpha()|' '.isspace()|''.isdigit()|'a\nb\r\nc'.splitlines()|'prefix-x'.removeprefix('prefix-')|'x.txt'.removesuffix('.txt')
s|upper|s|lower|s|title|'foo-bar (baz) x'|title|s|capitalize|ml|trim|'xxaxx'|trim('x')|s|length|l|length|d|length|l|first|l|last|[]|first|s|first|s|last|l|sort|l|sort(reverse=true)|ls|sort|ls|sort(case_sensitive=true)|ld|sort(attribute='k',reverse=true)|map(attribute='k')|list|l|join|l|join(', ')|ld|join('-', attribute='k')|ld|map(attribute='k')|list|ld|map(attribute='v', default=0)|list|ls|map('upper')|list|ld|selectattr('v')|list|ld|selectattr('v','equalto',1)|list|ld|selectattr('v','defined')|map(attribute='k')|list|ld|rejectattr('v','defined')|list|l|select('odd')|list|l|reject('gt', 1)|list|l|select|list|[1,1,2,'a','A']|unique|list|l|sum|ld[:2]|sum(attribute='v')|l|min|l|max|l|reverse|list|'abc'|reverse|neg|abs|3.7|int|'12'|int|'x'|int|'x'|int(5)|'3.5'|float|'z'|float|2.5|round|3.14159|round(2)|2.1|round(0,'ceil')|2.9|round(method='floor')|d|dictsort|{'b':1,'A':2}|dictsort|{'b':1,'A':2}|dictsort(true)|{'b':1,'A':2}|dictsort(false,'value')|d|items|list|d.items()|list|d.keys()|list|d.values()|list|d|list|s|list|nope|default('q')|e|default('q')|e|default('q', true)|nope|d('z')|nope|default|s|replace('l','L')|s|replace('l','L',1)|ml|indent|ml|indent(2,true)|ml|indent(2,blank=true)|ml|indent('>')|'<a>'|e|'<&"\'>'|escape|safe|l|string|d|string|nested|string|'%s is %d'|format('x', 5)|'%s-%s' % ('a','b')|'%d%%' % 5|l|tojson|d|tojson|nested|tojson|nested|tojson(indent=2)|u|tojson|u|tojson(ensure_ascii=true)|d|tojson(separators=(',',':'))|{'b':1,'a':2}|tojson(sort_keys=true)|[]|tojson(indent=2)|{}|tojson(indent=2)|1.0|tojson|none|tojson|true|tojson|{1:2,true:3}|tojson|messages|tojson|messages[1]|tojson(indent=4)|'a\x01\x7f\b'|tojson|d|attr('x')
a is defined|zz is defined|zz is undefined|zz is not defined|n is none|a is number|f is float|a is integer|t is integer|t is number|t is boolean|t is true|fl is false|a is true|s is string|d is mapping|l is mapping|l is sequence|s is sequence|d is sequence|s is iterable|a is iterable|n is iterable|zz is iterable|zz is sequence|a is odd|b is even|6 is divisibleby 3|6 is divisibleby(4)|a in [1]|a is in [1,2]|a is eq 1|a is equalto 1|a is ne 2|a is gt 0|a is ge 1|a is lt 0|a is le 1|'A' is upper|'a' is lower|'Ab' is upper|'12' is lower|range is callable|a is sameas 1|a is not none and b is defined
range(3)|list|range(1,4)|list|range(5,0,-2)|list|range(0)|list|dict(a=1,b=2)|dict(d, z=3)|namespace(a=1).a|{'a':1}.a|{'a':1,'a':2}|[1,'a',none,true,1.5]|(1,)|()|(1,2)|{}|[]|['it\'s', 'say "x"', "both'\""]|'\n\t\\'|['\n\t\\\x01']|[u]|{'k':[1]}|1,2|-a|+a|-f|- -a|-a|abs|1_000|0x1F|0b11|0o17|not not a
a.b|zz.b|zz|zz['x']|zz + 1|1 + zz|n + 1|s + 1|1 + s|l + 1|'a' < 1|n < 1|s.nope()|s.nope|1 / 0|1 % 0|1 // 0|none|length|5|length|a()|zz()|none|list|5|list|'x' in 5|1 in 'abc'|s[1.5]|l['x']|d[zz]|l|join(zz)|zz|upper|zz|tojson|zz|length|zz|list|zz|join|n|upper|n|string|n ~ 'x'|zz ~ 'x'|t ~ 'x'|l.append|d.update|'x'.join([1])|{'a':1} + {}|l|sort(attribute='q')|[1,'a']|sort|raise_exception('boom')|s|int|l|int|t|int|t + t|l * 2|2 * 'ab'|l * -1|s|nofilter|s is notest|range(200000)|length|'%d' % 'x'|'%s' % ()|l|max|[]|max|['b','A']|max|[]|last|zz|first|loop|self
'''
TEMPLATES=[
"{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
"{% for x in [] %}a{% else %}none{% endfor %}|{% for x in zz %}a{% else %}none{% endfor %}",
"{% for k, v in d.items() %}{{k}}={{v}};{% endfor %}{% for k in d %}{{k}}{% endfor %}{% for c in 'aé' %}<{{c}}>{% endfor %}",
"{% for x in l if x > 1 %}{{ loop.index0 }}{{ x }}{{ loop.first }}{{ loop.last }}{{loop.revindex}}{{loop.revindex0}} {% endfor %}",
"{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
"{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}end",
"{% for x in range(3) %}{% for y in range(x) %}{{ x }}{{ y }}{{ loop.index }} {% endfor %}{{ loop.index }}\n{% endfor %}",
"{% set x = 1 %}{% for i in l %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
"{% set ns = namespace(x=1) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{% set ns.y = 'q' %}{{ ns.y }}",
"{% if a == 2 %}x{% elif b == 2 %}y{% else %}z{% endif %}{% if false %}q{% endif %}",
"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}{% set (p, q) = [5, 6] %}{{p}}{{q}}",
"{% set x %}block {{ a }}{% endset %}[{{ x }}]{% set y | upper | trim %} abc {% endset %}[{{ y }}]",
"{% macro m(x, y='d', z=none) %}({{ x }},{{ y }},{{ z }}){% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(x=1, z=3) }}{{ m() }}{{ m(1)|upper }}",
"{% macro m(x) %}{{ x }}{{ caller() }}{% endmacro %}{% call m(1) %}inner{{ a }}{% endcall %}",
"{% macro m() %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(x) m() %}<{{ x }}>{% endcall %}",
"{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
"{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ m() }}",
"{% macro m() %}{% set q = 1 %}{{ q }}{% endmacro %}{{ m() }}{{ q }}",
"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
"{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
"{% macro m(a) %}{{ a }}{% endmacro %}{{ m.name }}",
"{% filter upper %}abc {{ s }}{% endfilter %}{% filter trim|upper %} x {% endfilter %}",
"{% with x = 5, y = a %}{{ x }}{{ y }}{% set z = 1 %}{% endwith %}{{ x }}{{ z }}",
"{% raw %}{{ a }}{% if %}{% endraw %}x{%- raw -%}  y {%- endraw -%}  z",
"{# comment #}a{#- c -#} b {# multi\nline #}\nc\n{# x #}\nd",
"a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
"a\n  {%- if true -%}\n  b\n  {%- endif -%}\nc\n\n",
"a\n  {%+ if true %}\n  b\n  {%+ endif +%}\nc\n",
"  {{ a }}\n  {{- a }}\n{{ a -}}\n  x {{ a }}\n",
"  {% if true %}x{% endif %}  {% if true %}y{% endif %}\n z",
"\n\n{% if true %}\n\nx{% endif %}\n\n\n",
"a\r\nb\r{% if true %}\r\nc{% endif %}\r\n",
"x{% generation %}y{{ a }}{% endgeneration %}z",
"{% for x in l recursive %}{{ x }}{% endfor %}",
"{% for x in [[1,[2]],[3]] recursive %}[{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}@{{ loop.depth }}{% endif %}]{% endfor %}",
"{{ loop is defined }}{% for x in l %}{{ loop.cycle('a','b') }}{% endfor %}",
"{% for m in messages[::-1] %}{{ m.role }}{% endfor %}{{ messages[-1].content[0].text }}",
"{{ 'a' if messages[0].content is string else 'b' }}{{ messages | selectattr('role','equalto','user') | list | length }}",
"{% set messages = messages[1:] %}{{ messages[0].role }}{% for message in messages %}{% set messages = [] %}{{ messages|length }}{% endfor %}{{ messages|length }}",
"{% if true %}{% set q = 1 %}{% endif %}{{ q }}{% for x in [1] %}{% if true %}{% set w = 1 %}{% endif %}{{ w }}{% endfor %}{{ w }}",
"{%- for x in l -%} {{ x }} {%- endfor -%}",
"{{ '}}' }}{{ {'a':{'b':1}}['a']['b'] }}{{ {'a':{'b':1}}.a.b}}",
"{% set x = {'a': 1, 'b': [1, 2]} %}{{ x.b[1] }}{{ x['a'] }}",
"{{ a }}{% if a %}",
"{{ a }",
"{% for %}{% endfor %}",
"{% endif %}",
"{{ }}",
"{% %}",
"{% foo %}",
"{{ 'abc }}",
"{# abc",
"{{ a b }}",
"{% if a %}{% else %}{% else %}{% endif %}",
"{% set a.b = 1 %}",
"{% set x = 1 %}{% set x.b = 1 %}",
"{% set a, b = [1] %}","{% set a, b = [1,2,3] %}",
"{% for a, b in [1] %}{% endfor %}","{% for a, b in [[1,2],[3,4]] %}{{a}}{{b}}{% endfor %}","{% for a in 1,2,3 %}{{a}}{% endfor %}",
"{{ raise_exception('x') }}","{% if not messages %}{{ raise_exception('No') }}{% endif %}ok",
"line1\n{{ zz.a.b }}","{{ [1,2,3][0:2][1] }}{{ (1,2)[0] }}{{ 'abc'[1] }}{{ [].x }}",
"{{ a|default('x')|upper ~ 'y' }}{{ zz|default('x')|upper ~ 'y' }}{{ -1|abs }}{{ (-1)|abs }}",
"{{ 1 if a else 2 }}{{ a if a == 2 }}{{ not a in [1] }}{{ a not in [1] }}{{ not (a in [1]) }}",
"{{ 'a' 'b' ~ 'c' }}{{ 1 ~ 2 + 3 }}{{ 2 * 3 ~ 4 }}{{ a is defined and b is defined or c }}{{ a is not defined or zz is not defined }}",
"{{ l is sequence and l is not string }}{{ d is mapping and d }}{{ s is string and s|length > 3 }}",
"{{ ' x '|trim + 'y' }}{{ 'x' + 'a,b'.split(',')[-1].upper() }}{{ messages[0]['content'] | trim + '|' }}",
"{% for i in range(2) -%}\n  {{ i }}\n{%- endfor %}\nend","{%- if a -%}\n\n  x\n\n{%- endif %}  \n y","a {%- if true %} b {% endif -%} c",
"{{ 'x'|replace('x', '') is none }}{{ none is none }}",
"{% set x = [] %}{% for i in l %}{% set x = x + [i] %}{% endfor %}{{ x }}",
"{{ '%s'|format(a) }}{{ namespace(d).x }}{{ dict(a=1)|length }}",
"{%-  set    ns=namespace( a = 1 ,)  -%}{{ns.a}}", "{{ m(1,) if false else 'k' }}","{{ [1,2,] }}{{ {'a':1,} }}",
"{{ s.x is defined }}{{ l.x is defined }}{{ n.x is defined }}{{ 5 .x is defined }}",
"{{ d['items'] }}{{ d.items is callable }}", "{{ messages[5] is defined }}{{ messages[5].x is defined }}",
"{{ messages[0].content[:2] ~ messages[0]['role'] }}{{ messages|map(attribute='role')|join(',') }}{{ messages|tojson(indent=1) }}",
"{%- macro r(c) -%}{%- if c is string -%}{{- c -}}{%- else -%}{%- for x in c -%}{{- x.text -}}{%- endfor -%}{%- endif -%}{%- endmacro -%}{%- for m in messages -%}{{ r(m.content)|trim }};{%- endfor -%}",
"{% set _ = namespace() %}{{ _ is defined }}", "{{ true and 'x' }}{{ True }}{{ None }}{{ none }}{{ False }}", "{{ 10 / 2 }}{{ 7 % 2 == 1 }}{{ 1 == 1 and 'odd' }}{{ loop_index|default(0) }}",
"{{ 'a\nb' }}{{ 'tab\there' }}{{ 'q\\'x' }}{{ '\\d' }}{{ \"\\u4f60\" }}{{ '\\x41\\101\\0' }}",
"{{ 3.0 }}{{ 3.10 }}{{ 1e100 }}{{ 0.0001 }}{{ 0.00001 }}{{ 1/3 }}{{ 100000000000000000000.0 }}{{ -0.0 }}{{ 12345678.9 }}",
"{% set loop = 5 %}{{ loop }}{% for x in [1] %}{{ loop.index }}{% endfor %}",
"{% for x in l %}{% for x in ls %}{{ x }}{% endfor %}{{ x }}{% endfor %}{{ x }}",
"{% for item in l|sort|reverse %}{{ item }}{% endfor %}{{ (l|sort)[0] }}{{ l|sort|first }}",
"{{ {'a':1} == {'a':1.0} }}{{ [1] == (1,) }}{{ 'a' == u }}{{ {} == zz }}{{ zz == zz2 }}{{ none == false }}{{ 0 == false }}",
"{{ 'ab' < 'b' }}{{ 'B' < 'a' }}{{ 'é' > 'z' }}{{ (1,2) < (1,3) }}{{ true < 2 }}{{ 1 <= 1.0 }}",
]
# fmt: on

ONLY_PYTHON = ["l.append", "l|sort(attribute='q')", "'x'.join([1])", "self", "d|attr('x')", "dictsort(false,'value')|d",
               "is number|", "x.real"]


def render(template):
    try:
        return env.from_string(template).render(**VARIABLES)
    except Exception:
        return None


def main():
    cases = [[t, render(t)] for t in TEMPLATES]
    for line in EXPRESSIONS.strip().split("\n"):
        parts = line.split("|")
        for text in parts + [a + "|" + b for a, b in zip(parts, parts[1:])]:
            result = render("{{ " + text + " }}")
            python = result is not None and any(s in result for s in ("object at 0x", "<generator", "dict_", "range(", "<Template"))
            if not python and not any(s in text for s in ONLY_PYTHON):
                cases.append(["{{ " + text + " }}", result])
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json")
    with open(path, "w") as f:
        lines = [json.dumps(c, separators=(",", ":")) for c in cases]
        f.write('{"variables": %s, "cases": [\n%s\n]}\n' % (json.dumps(VARIABLES), ",\n".join(lines)))


main()

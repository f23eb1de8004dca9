#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Writes the man pages of section 3, one for each public header: doc/mkman.py OUTPUT_FOLDER.

Run it after a change of include/plait; doc/test_man.sh fails when the pages in doc/man are not what it writes.
It knows the headers' style: a comment /** ... */ (with @param, @return) and what it explains, directly below.
"""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HEADERS = ["ctx", "session", "msg", "mem", "rma", "job", "status", "topo", "version"]
DATE = "2026-11-22"


def esc(text):
    """Plain text for troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in ".'" else line for line in text.split("\n"))


def clean(comment):
    """The lines of a comment without its stars."""
    body = re.sub(r"^/\*\*<?|\*/$", "", comment.strip())
    return [re.sub(r"^\s*\* ?", "", line).rstrip() for line in body.split("\n")]


def sections(comment):
    """A comment as a list of (tag, name, text)."""
    out = [["", "", []]]
    for line in clean(comment):
        # @return may stand in the middle of a line
        head, mark, tail = re.match(r"(.*?)(?:(@return)\b\s*(.*))?$", line).groups()
        m = re.match(r"\s*@(param)(?:\[[a-z,]+\])?\s+(\w+)\s*(.*)", line)
        if m:
            out.append([m[1], m[2], [m[3]]])
        elif re.match(r"\s*@(file|brief)", line):
            m = re.match(r"\s*@(file|brief)\s*(.*)", line)
            out.append([m[1], "", [m[2]]])
            if m[1] == "brief":
                out.append(["", "", []])
        elif mark:
            out[-1][2].append(head)
            out.append(["return", "", [tail]])
        else:
            out[-1][2].append(line)
    return out


def paragraphs(lines):
    """Fills text; lines indented by two or more, as lists are, stay lines."""
    out = []
    for line in lines:
        if not line.strip():
            out.append(".PP")
        elif re.match(r"\s{2,}", line):
            out += [".br"] if out and out[-1] != ".PP" else []
            out.append(esc(line.strip()))
        else:
            out.append(esc(line.strip()))
    while out and out[0] == ".PP":
        out.pop(0)
    while out and out[-1] == ".PP":
        out.pop()
    return [line for i, line in enumerate(out) if line != ".PP" or out[i - 1] != ".PP"]


def explain(comment):
    out = []
    for tag, name, lines in sections(comment):
        body = paragraphs(lines)
        if tag == "param":
            out += [".TP", ".I " + name] + (body or ["\\&"])
        elif tag == "return" and body:
            body[0] = "Returns " + body[0]
            out += [".PP" if out else ""] + body
        else:
            out += body
    return [line for line in out if line]


def parse(text):
    """Items of a header in order: (kind, comment, code); kind: section, function, type, define, brief."""
    text = text[text.index("/**"):]
    text = re.sub(r"^#ifdef __cplusplus.*?^#endif\n", "", text, flags=re.M | re.S)
    items, comment, pos = [], "", 0
    token = re.compile(
        r"(?P<section>/\* ---- .*? ---- \*/)|(?P<doc>/\*\*(?!<).*?\*/)|(?P<skip>/\*.*?\*/)"
        r"|(?P<define>^#define(?:/\*.*?\*/|\\\n|[^\n])*)|(?P<pre>^#[^\n]*)"
        r"|(?P<function>^PLAIT_API\b[^;]*;)|(?P<type>^(?:enum|struct)\s+\w+\s*\{.*?^\};|^typedef[^;]*;)"
        r"|(?P<forward>^struct \w+;)|(?P<blank>\n\s*\n)", re.M | re.S)
    while True:
        m = token.search(text, pos)
        if not m:
            return items
        pos, kind, code = m.end(), m.lastgroup, m.group()
        if kind == "doc":
            comment = code
            if "@file" in code:
                items.append(("brief", code, ""))
                comment = ""
        elif kind == "section":
            items.append(("section", "", code))
        elif kind in ("function", "type", "define"):
            # a guard has no value
            if kind != "define" or len(code.split()) > 2:
                items.append((kind, comment, code))
            comment = ""
        elif kind == "blank":
            comment = ""


def prototype(code):
    return re.sub(r"\s+", " ", code.replace("PLAIT_API ", "")).strip()


def function_name(code):
    return re.search(r"(plait_\w+)\s*\(", code)[1]


def code_lines(code):
    return [".nf", *[esc(line) for line in code.split("\n")], ".fi"]


def page(header, version):
    with open(os.path.join(TOP, "include/plait", header + ".h"), encoding="utf-8") as f:
        items = parse(f.read())
    functions = [code for kind, _, code in items if kind == "function"]
    name = "plait_" + header
    about, brief = [], ""
    for tag, _, lines in sections(next(c for k, c, _ in items if k == "brief")):
        if tag == "brief":
            brief = " ".join(lines).strip().rstrip(".")
        elif tag == "":
            about += lines
    names = [n for n in (function_name(f) for f in functions) if n != name]
    out = ['.\\" SPDX-License-Identifier: BSD-3-Clause',
           '.\\" Written by doc/mkman.py from include/plait/%s.h: change that file.' % header,
           '.TH %s 3 "%s" "plait %s" "plait"' % (name.upper(), DATE, version),
           ".SH NAME", ", ".join([name] + names) + " \\- " + esc(brief),
           ".SH SYNOPSIS", ".nf", ".B #include <plait/plait.h>", ".PP"]
    out += ["\\fB" + esc(prototype(f)) + "\\fR" for f in functions]
    out += [".fi", ".PP", "Compile and link with the flags that", ".B pkg\\-config \\-\\-cflags \\-\\-libs plait",
            "prints.", ".SH DESCRIPTION"] + paragraphs(about)
    out += [".SH FUNCTIONS"]
    waiting = ""
    for kind, comment, code in items:
        if kind == "section":
            waiting = re.sub(r"/\* -+ | -+ \*/", "", code)
        elif kind == "function":
            if waiting:
                out += [".SS " + esc(waiting[0].upper() + waiting[1:])]
                waiting = ""
            out += [".TP", "\\fB" + esc(prototype(code)) + "\\fR"]
            body = explain(comment)
            if body:
                out += [".RS", *body, ".RE"] if ".TP" in body or ".PP" in body else body
            else:
                out += ["See above."] if comment == "" else []
    types = [(c, code) for kind, c, code in items if kind in ("type", "define")]
    if types:
        out += [".SH TYPES AND CONSTANTS"]
        for comment, code in types:
            out += [".PP"] + (paragraphs(clean(comment)) if comment else []) + ([".PP"] if comment else [])
            out += code_lines(code)
    out += [".SH ERRORS", "Codes are negative and listed in", ".BR plait_status (3);",
            "after a failed call", ".BR plait_error_text ()", "gives a sentence that tells more.",
            ".SH SEE ALSO"]
    see = [".BR plait (1),", ".BR plait (7),"]
    see += [".BR plait_%s (3)," % h for h in HEADERS if h != header]
    see[-1] = see[-1].rstrip(",")
    squeezed = []
    for line in out + see:  # no empty paragraphs
        if line == ".PP" and squeezed and (squeezed[-1] in (".PP", ".RS") or squeezed[-1].startswith((".SH", ".SS"))):
            continue
        squeezed.append(line)
    return "\n".join(squeezed) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(os.path.join(TOP, "include/plait/version.h"), encoding="utf-8") as f:
        numbers = re.findall(r"#define PLAIT_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", f.read())
    for header in HEADERS:
        with open(os.path.join(sys.argv[1], "plait_%s.3" % header), "w", encoding="utf-8") as f:
            f.write(page(header, ".".join(numbers)))


if __name__ == "__main__":
    main()

"""Licences at the top of files: what goes, what must stay, in every language; RedPajama's bugs by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from licence_texts import APACHE_HEADER, BSD_3, GPL_HEADER, MIT, commented
from linear import assert_linear, repeated

from filters.code.headers import find_top_comments, strip_licence

BLOCK = "/*\n" + "".join(f" * {line}".rstrip() + "\n" for line in MIT.split("\n")) + " */\n\n"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("C", "#include <stdio.h>\n#define X 1\nint main(){}"),  # theirs: int main(){}
        ("Markdown", "# Copyright law\n\nA title is no comment; licensed under MIT.\n"),
        ("Markdown", "# Title\n\n<!-- Copyright 2010 A -->\n"),
        ("Shell", "#!/bin/sh\n# Counts the words of a file.\nwc -w \"$1\"\n"),
        ("Python", "# -*- coding: utf-8 -*-\n# What this module does.\nx = 1\n"),
        ("Python", '"""Licensed under the MIT license: what the docstring says stays."""\nx = 1\n'),
        ("SQL", "-- Makes the table of licence plates.\nCREATE TABLE plates (id INT);\n"),
        ("C", "int x; /* Copyright 2010 A */\n"), ("C", 'char *s = "// Copyright 2010 A";\n'),
        ("CSS", "# Copyright 2010 A\n"), ("", "# Copyright 2010 A\n"), ("C", "/* Copyright 2010 A, never closed\n"),
        ("PHP", "<html><!-- Copyright 2010 --></html>\n<?php // Copyright 2010\n"),
        ("PHP", "no opening // Copyright 2010 A\n"),
        ("reStructuredText", "Title\n=====\n\n.. note:: Copyright 2010\n"),
        ("reStructuredText", ".. copyright:: 2010 A\n"),
        ("Rust", "use a;\n// Copyright 2010 A\n"), ("Go", "// +build linux\n\npackage a\n"),
        ("XML", '<?xml version="1.0"?>\n<a copyright="2010"/>\n'), ("Haskell", "{-# LANGUAGE GADTs #-}\nmodule A\n"),
        ("Python", "# Checks that every licence plate is one.\nx = 1\n"),
        ("Dockerfile", "# syntax=docker/dockerfile:1\nFROM a\n"),
    ],
)  # fmt: skip
def test_what_is_no_licence_comment_at_the_top_stays(language: str, text: str) -> None:
    assert strip_licence(text, language).text == text


@pytest.mark.parametrize(
    ("language", "text", "left"),
    [
        ("C", BLOCK + "#include <a.h>\n", "#include <a.h>\n"),
        ("Java", "/* Copyright 2010 A */\npackage a;\n", "package a;\n"),
        ("Java", "/**\n * Copyright 2010 A\n */\n\n/**\n * Adds.\n */\nclass A {}\n",
         "/**\n * Adds.\n */\nclass A {}\n"),
        ("Go", commented(APACHE_HEADER, "//") + "\n// Package a adds.\npackage a\n", "// Package a adds.\npackage a\n"),
        ("Python", "#!/usr/bin/env python\n" + commented(MIT, "#") + "import a\n", "#!/usr/bin/env python\nimport a\n"),
        ("Python", "# -*- coding: utf-8 -*-\n" + commented(GPL_HEADER, "#") + "import a\n",
         "# -*- coding: utf-8 -*-\nimport a\n"),
        ("Python", "# Adds numbers.\n#\n# Copyright 2010 A\n#\n# Slowly.\nx = 1\n",
         "# Adds numbers.\n#\n# Slowly.\nx = 1\n"),
        ("Python", "# Adds numbers.\n# Copyright 2010 A\n# Slowly.\nx = 1\n", "# Adds numbers.\n# Slowly.\nx = 1\n"),
        ("Shell", "#!/bin/sh\n#\n# Copyright (c) 2010 A. All rights reserved.\n\nls\n", "#!/bin/sh\nls\n"),
        ("PHP", "<?php\n/**\n * @copyright 2010 A\n * @license MIT\n */\nnamespace A;\n", "<?php\nnamespace A;\n"),
        ("Java", "/**\n * (c) 2010 A\n * @file Adds.\n * @license MIT License\n */\n", "/**\n * @file Adds.\n */\n"),
        ("XML", '<?xml version="1.0"?>\n<!-- Copyright 2010 A -->\n<a/>\n', '<?xml version="1.0"?>\n<a/>\n'),
        ("HTML", "<!DOCTYPE html>\n<!-- Copyright 2010 A -->\n<p>\n", "<!DOCTYPE html>\n<p>\n"),
        ("Markdown", "<!-- Licensed under the MIT license -->\n# Title\n", "# Title\n"),
        ("Haskell", "-- Copyright 2010 A\nmodule A where\n", "module A where\n"),
        ("Haskell", "{-# LANGUAGE A #-}\n{- Copyright 2010 A -}\nmodule A\n", "{-# LANGUAGE A #-}\nmodule A\n"),
        ("Lua", "--[[ Copyright 2010 A\n]]\nlocal a\n", "local a\n"),
        ("SQL", "-- (c) 2010 A\nSELECT 1;\n", "SELECT 1;\n"),
        ("TeX", "% Copyright 2010 A\n\\documentclass{a}\n", "\\documentclass{a}\n"),
        ("Fortran", "C     Copyright 2010 A\n      CALL B\n", "      CALL B\n"),
        ("Visual Basic", "' Copyright 2010 A\nDim a\n", "Dim a\n"),
        ("Batchfile", "@echo off\nREM Copyright 2010 A\ndir\n", "@echo off\ndir\n"),
        ("Objective-C or MATLAB", "% Copyright 2010 A\nx = 1;\n", "x = 1;\n"),
        ("CSS", "/*! (c) 2010 A */\np {}\n", "p {}\n"),
        ("PowerShell", "<#\nCopyright 2010 A\n#>\nls\n", "ls\n"),
        ("Julia", "# SPDX-License-Identifier: MIT\nx\n", "x\n"),
        ("reStructuredText", ".. Copyright 2010 A\n   Licensed under MIT.\n\nTitle\n", "Title\n"),
        ("Assembly", "; Copyright 2010 A\n  mov a, b\n", "  mov a, b\n"),
        ("CMake", "# Copyright 2010 A\nproject(a)\n", "project(a)\n"),
        ("C", "/* Copyright 2010 A */ int x;\n", " int x;\n"), ("C", "// Copyright 2010 A", ""),
        ("C", "/* Copyright 2010 A\n *\n * Adds.\n */\n", "/*\n * Adds.\n */\n"),
        ("C", "/* Adds.\n *\n * Copyright 2010 A */\n", "/* Adds.\n */\n"),
        ("C", "/*\n * Adds.\n *\n * Copyright 2010 A\n *\n */\n", "/*\n * Adds.\n */\n"),
        ("C#", "#region A\n// Copyright 2010 A\n#endregion\nusing A;\n", "#region A\n#endregion\nusing A;\n"),
        ("Ruby", "# frozen_string_literal: true\n# Copyright 2010 A\nx\n", "# frozen_string_literal: true\nx\n"),
        ("C", commented(BSD_3, "//") + "int x;\n", "int x;\n"),
    ],
)  # fmt: skip
def test_licences_go_and_what_else_a_comment_says_stays(language: str, text: str, left: str) -> None:
    headed = strip_licence(text, language)
    assert headed.text == left and headed.legal


def test_files_that_differ_in_their_licence_alone_are_equal_without_it() -> None:
    """RedPajama hashes before it strips, so that these stay both."""
    code = "#include <a.h>\nint x;\n"
    assert {strip_licence(header + code, "C").text for header in ("", BLOCK, commented(BSD_3, "//") + "\n\n")} == {code}


def test_a_docstring_with_a_licence_stays_but_is_told() -> None:
    text = f'#!x\n"""Adds.\n\n{GPL_HEADER}\n"""\nx = 1\n'
    headed = strip_licence(text, "Python")
    assert headed.text == text and "General Public" in headed.legal


WORDS = [
    "Copyright 2010 A",
    "Adds.",
    "licensed under",
    "the",
    "",
    "MIT License",
    "a = 1;",
    "#include <b>",
    "\n",
    "All rights reserved",
]
MARKS = ["//", "/*", "*/", " *", "#", "--", "<!--", "-->", "%", "<?php", "", "", "\n", '"""']
LANGUAGES = [
    "C",
    "Python",
    "PHP",
    "Haskell",
    "HTML",
    "Lua",
    "reStructuredText",
    "SQL",
    "Julia",
    "Fortran",
    "Batchfile",
    "?",
]


@given(st.lists(st.tuples(st.sampled_from(MARKS), st.sampled_from(WORDS), st.sampled_from([" ", "\n"])), max_size=12),
       st.sampled_from(LANGUAGES))  # fmt: skip
def test_what_goes_is_comment_and_speaks_of_a_licence(parts: list[tuple[str, str, str]], language: str) -> None:
    text = "".join(f"{mark} {words}{end}" for mark, words, end in parts)
    headed = strip_licence(text, language)
    comments = list(find_top_comments(text, language))
    place, kept = 0, []
    for start, stop in headed.removed:
        assert place <= start < stop
        kept.append(text[place:start])
        place = stop
        inside = [comment for comment in comments if comment.start <= start < comment.stop]
        assert len(inside) == 1 and not text[inside[0].stop : stop].strip()
        lowered = text[start:stop].lower()
        assert any(word in lowered for word in ("copyright", "licen", "rights reserved"))
    assert "".join([*kept, text[place:]]) == headed.text


def test_hostile_headers_take_linear_time() -> None:
    for unit in (
        "// Copyright 2010\n",
        "/* */",
        "/*",
        "#\n",
        "{-# ",
        "--[[",
        "<!-- -->",
        "// license copyright\n",
        "// ",
        ".. \n ",
    ):
        for language in ("C", "Python", "Haskell", "Lua", "HTML", "reStructuredText", "PHP"):
            assert_linear(lambda text, language=language: strip_licence(text, language), repeated(unit), 120_000)


LEADING = [
    ("Shell", "#!/bin/sh\nset -eu\n\n", "#"),
    ("Python", "#!/usr/bin/env python\nfrom __future__ import division\n", "#"),
    ("JavaScript", "#!/usr/bin/env node\n'use strict';\n\n", "//"),
    ("TypeScript", '"use strict"\n', "//"),
    ("Java", "package a.b.c;\n\n", "//"),
    ("Kotlin", "package a.b\n\n", "//"),
    ("Kotlin", '@file:JvmName("A")\n@file:Suppress("x", "y")\n\npackage a.b\n', "//"),
    ("Scala", "package a\npackage b\n", "//"),
    ("Go", "package a\n\n", "//"),
    ("Groovy", "package a.b\n", "//"),
    ("Dart", "library a.b;\n", "//"),
    ("C", "#pragma once\n", "//"),
    ("C++", "#ifndef A_H\n#define A_H\n\n", "//"),
    ("Rust", "#![allow(unused)]\n", "//"),
    ("PHP", "<?php\nnamespace A\\B;\n\n", "//"),
    ("PHP", "#!/usr/bin/php\n<?php\ndeclare(strict_types=1);\n", "//"),
    ("Perl", "#!/usr/bin/perl\npackage A::B;\nuse strict;\nuse warnings;\n", "#"),
    ("Erlang", "-module(a).\n", "%"),
    ("CSS", '@charset "utf-8";\n', "/*"),
    ("YAML", "---\n", "#"),
    ("Haskell", "#!/usr/bin/env runhaskell\n", "--"),
    ("C#", "#nullable enable\n", "//"),
    ("C#", "namespace A.B;\n\n", "//"),
    ("HTML", "<!DOCTYPE html>\n<html lang=en>\n<head>\n", "<!--"),
    ("Nim", "#!/usr/bin/nim\n", "#"),
    ("Zig", "", "//"),
    ("Swift", "#!/usr/bin/swift\n", "//"),
    ("Julia", "#!/usr/bin/julia\n", "#"),
]


@pytest.mark.parametrize(("language", "before", "mark"), LEADING)
def test_licences_behind_a_shebang_or_package_line_go(language: str, before: str, mark: str) -> None:
    after = "x = 1\n"
    end = {"/*": " */", "<!--": " -->"}.get(mark, "")
    notice = f"{mark} Copyright 2010 The Authors. All rights reserved.{end}\n\n"
    stripped = strip_licence(before + notice + after, language)
    assert stripped.text == before + after and "Copyright" in stripped.legal
    kept = f"{before}{mark} What this file does.{end}\n{after}"
    assert strip_licence(kept, language).text == kept


def test_licences_behind_code_stay() -> None:
    for language, code in (
        ("Java", "package a;\nimport b;\n"),
        ("C", "#define A 1\n"),
        ("Perl", "package A;\nuse B;\n"),
    ):
        text = f"{code}{'#' if language == 'Perl' else '//'} Copyright 2010 A\n"
        assert strip_licence(text, language).text == text

"""Licences by their words: texts as people write them, headers, choices, terms besides, SPDX expressions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from licence_texts import APACHE, APACHE_HEADER, BSD_2, BSD_3, BSD_4, GPL_HEADER, MIT, commented
from linear import assert_linear, repeated

from filters.code.licences import identify_header_licence, identify_licence, is_allowed, join_licences

KEPT = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT")
NO_HARM = "The Software shall be used for Good, not Evil."
X11 = 'Except as contained in this notice, the name of the "X Consortium" shall not be used in advertising.'
NCSA = MIT.replace("to deal in the Software", "to deal with the Software")
ISC = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is granted."
EITHER = (
    "This software is dual-licensed: take the MIT License or the GNU General Public License, version 2, as you like."
)
POINTER = "This project is under the terms of either licence; see the files LICENSE.APACHE and LICENSE.BSD."


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (MIT, "MIT"), (MIT.replace("\n", "\r\n"), "MIT"), (MIT.upper(), "MIT"), (" ".join(MIT.split()), "MIT"),
        (MIT.partition("\n\n")[2], "MIT"), (BSD_2, "BSD-2-Clause"), (BSD_3, "BSD-3-Clause"), (BSD_4, "BSD-4-Clause"),
        (APACHE, "Apache-2.0"), (APACHE.partition("END OF TERMS")[0], "Apache-2.0"), (APACHE_HEADER, "Apache-2.0"),
        (MIT + X11, "X11"), (MIT + NO_HARM, "JSON"), (NCSA, "NCSA"), (ISC, "ISC"),
        (MIT + "\n\n" + BSD_3, "BSD-3-Clause AND MIT"), ("Released under the MIT license.", "MIT"),
        (EITHER + "\n" + MIT, "GPL OR MIT"), (MIT + GPL_HEADER, "GPL AND MIT"), (GPL_HEADER, "GPL"),
        ("All rights reserved. Proprietary and confidential.", "Proprietary"),
        (MIT + "Commons Clause", "Commons-Clause AND MIT"),
        (MIT + " The Software may not be used for commercial ends: for non-commercial use only.", "MIT AND NC"),
        (MIT.replace("without restriction", "for commercial and non-commercial ends without restriction"), "MIT"),
        (MIT + "\n" + "The Software may be used on Sundays. " * 60, "NOASSERTION"), ("", "NOASSERTION"),
        ("My code, my rules.", "NOASSERTION"), (POINTER, ""), ("x" * (2 << 20), "NOASSERTION"),
        ("SPDX-License-Identifier: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        (APACHE + " if you combine this with software that is licensed under the GPLv2 you may", "Apache-2.0"),
    ],
)  # fmt: skip
def test_licence_files(text: str, licence: str) -> None:
    assert identify_licence(text) == licence


@pytest.mark.parametrize(
    ("comment", "licence"),
    [
        ("# SPDX-License-Identifier: GPL-2.0-only", "GPL-2.0-only"),
        ("# SPDX-License-Identifier: GPL-2.0/MIT // a", "(GPL-2.0 OR MIT)"),
        ('# SPDX-License-Identifier: "MIT"', "MIT"),
        ("/* SPDX-License-Identifier: MIT */ a / b", "MIT"),
        ("/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */", "(GPL-2.0 OR MIT)"),
        ("<!-- SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception -->", "Apache-2.0 WITH LLVM-exception"),
        ("SPDX-License-Identifier: MIT\nSPDX-License-Identifier: ISC", "ISC AND MIT"),
        (commented(GPL_HEADER, "#"), "GPL"), (commented(APACHE_HEADER, "//"), "Apache-2.0"),
        (commented(MIT, " *"), "MIT"), (commented(BSD_3, ";;"), "BSD-3-Clause"),
        ("Copyright 2010 The Authors. Use of this source code is governed by a BSD-style license", ""),
        ("Copyright 2010 A. All rights reserved.", ""), ("Licensed under the MIT license.", "MIT"),
        ("Licensed under MIT or GPL licenses", "GPL OR MIT"), ("GNU LGPL v2.1", "LGPL"),
        ("This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0", "MPL"),
        ("Dual licensed under the MIT license and the GPL license", "GPL OR MIT"),
    ],
)  # fmt: skip
def test_headers(comment: str, licence: str) -> None:
    assert identify_header_licence(comment) == licence


NAMES = {
    "MIT": "the MIT License",
    "Apache-2.0": "Apache License, Version 2.0",
    "GPL": "the GNU General Public License v2",
}
OFFERS = [
    "You may select, at your option, one of the above-listed licenses: {0} or {1}.",
    "This is dual-licensed: {0} and {1}.",
    "Dual licensing: {0}; {1}.",
    "This file is tri-licensed: {0}, {1}, a third.",
    "You can choose between {0} and {1}.",
    "You may choose: {0} / {1}.",
    "Use it under {0}, or, at your option, under {1}.",
    "You are free to choose {0} or {1}.",
    "Distributed under the terms of {0}. Alternatively, this file may be used under {1}.",
    "You may use it under either {0} or {1}.",
    "{0} or {1}, whichever you prefer.",
    "Licensed under {0} or {1}.",
    "Available under one of the following licenses: {0}, {1}.",
    "{0}, {1}: you can freely decide which license applies.",
    "At the user's option, {0} or {1} applies.",
    "This is multi-licensed under {0} and {1}.",
]
NO_OFFERS = [
    "Parts are under {0}, others under {1}.",
    "{0} and {1} apply.",
    "It is under {0}; a.c is under {1}.",
    "Under {1} either version 2 of the License, or (at your option) any later version; the rest under {0}.",
    "You must comply with both {0} and {1}.",
    "Code: {0}. Tests: {1}. You may choose to offer, and charge a fee for, support.",
]


@pytest.mark.parametrize("mark", ["Copyright 2010 A", "Copyright (C) 2010 A, Inc.", "(c) A <a@b.org>", "© 2010 A"])
@pytest.mark.parametrize(
    ("terms", "licence"),
    [
        ("Licensed under GPL v3.", "GPL"),
        ("Released under the MIT license", "MIT"),
        ("GPL v2", "GPL"),
        ("Distributed under the terms of the GPL version 2", "GPL"),
        ("Licensed under the Apache License, Version 2.0", "Apache-2.0"),
        ("University of Illinois Open Source License", "NCSA"),
        ("All rights reserved.", ""),
        ("Apache Software Foundation", ""),
    ],
)
def test_a_copyright_line_may_name_a_licence(mark: str, terms: str, licence: str) -> None:
    """Else a file under the GPL would have the licence of the repository that it was copied into."""
    assert identify_header_licence(f"/* {mark} {terms} */") == licence
    assert identify_header_licence(f" * {mark}.\n * {terms}\n") == licence


def test_a_notice_that_is_cut_off_is_not_mit_0() -> None:
    granted = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software, to use it"
    assert identify_header_licence(granted) == "MIT-0"
    assert identify_header_licence(f"{granted}, subject to the following conditions:") == ""


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("pair", [("MIT", "GPL"), ("GPL", "Apache-2.0"), ("MIT", "Apache-2.0")])
def test_prose_that_offers_a_choice_is_or(offer: str, pair: tuple[str, str]) -> None:
    text = offer.format(*(NAMES[name] for name in pair))
    assert identify_header_licence(text) == " OR ".join(sorted(pair)) == identify_licence(text)


def test_terms_stay_whatever_is_chosen() -> None:
    found = identify_header_licence("You may choose the MIT License or the Apache License 2.0, for non-commercial use.")
    assert found == "(Apache-2.0 OR MIT) AND NC" and not is_allowed(found, KEPT)
    rust = "Licensed under the Apache License, Version 2.0 or the MIT license, at your option. This file may not be"
    rust += " copied, modified, or distributed except according to those terms."
    assert identify_header_licence(rust) == "Apache-2.0 OR MIT"


@pytest.mark.parametrize("text", NO_OFFERS)
def test_prose_without_an_offer_is_and(text: str) -> None:
    text = text.format(NAMES["MIT"], NAMES["GPL"])
    assert identify_header_licence(text) == "GPL AND MIT" == identify_licence(text)


def test_an_offer_before_the_texts_of_all_its_licences() -> None:
    offer = "You may use this project under either the MIT License or the GNU General Public License.\n\n"
    assert (
        identify_licence(offer + MIT + "GNU GENERAL PUBLIC LICENSE\n" + "The long terms of it. " * 300) == "GPL OR MIT"
    )
    others = offer + MIT + "Mozilla Public License\n" + "The long terms of it. " * 300
    assert identify_licence(others) == "GPL AND MIT AND MPL"


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("mit", True), ("GPL-2.0", False), ("MIT OR GPL-2.0", True), ("MIT AND GPL-2.0", False),
        ("GPL-2.0 OR (MIT AND Apache-2.0)", True), ("GPL-2.0 AND (MIT OR Apache-2.0)", False), ("(MIT)", True),
        ("Apache-2.0 WITH LLVM-exception", True), ("GPL-2.0 WITH Classpath-exception-2.0", False),
        ("MIT AND (BSD-3-Clause OR GPL-2.0) AND Apache-2.0", True), ("NOASSERTION", False), ("", False),
        ("MIT OR", False), ("(MIT", False), ("MIT)", False), ("OR MIT", False), ("MIT GPL-2.0", False),
        ("MIT WITH", False), ("(" * 50 + "MIT" + ")" * 50, False), ("()", False), ("MIT or gpl-2.0", True),
        ("MIT WITH )", False), ("(MIT WITH)", False),
    ],
)  # fmt: skip
def test_expressions(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, KEPT) is allowed


@given(st.lists(st.sampled_from(["MIT", "GPL-2.0", "AND", "OR", "WITH", "(", ")", "x"]), max_size=30))
def test_expressions_never_raise_and_joining_with_a_kept_one_changes_nothing(tokens: list[str]) -> None:
    expression = " ".join(tokens)
    if is_allowed(expression, KEPT):
        assert is_allowed(f"({expression}) AND MIT", KEPT) and not is_allowed(f"({expression}) AND GPL-2.0", KEPT)
    else:
        assert not is_allowed(join_licences([expression, "MIT"]), KEPT) or expression in ("", "MIT")


@given(st.text(max_size=300))
@settings(max_examples=40)
def test_a_changed_text_around_a_licence_changes_nothing(title: str) -> None:
    assert "MIT" in identify_licence(title[:100] + "\n\n" + MIT)
    identify_licence(title), identify_header_licence(title)


def test_hostile_texts_take_linear_time() -> None:
    for unit in ("copyright ", "SPDX-License-Identifier:" + " ", "(c)\n", "license ", "(", "MIT OR "):
        for work in (identify_licence, identify_header_licence, lambda text: is_allowed(text, KEPT)):
            assert_linear(work, repeated(unit), 200_000)

"""Evaluate MediaWiki parser functions that depend on the page only: conditions, expressions and changes of case.

Sources: https://www.mediawiki.org/wiki/Help:Extension:ParserFunctions, and `ExprParser` of that extension. If an
argument is not known, such as the current date, the result is the mark of an unknown template
(`filters.wikitext.gaps`).
"""

import math
import operator
import re
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

from filters.wikitext.gaps import GONE, mark_unknown

EXPRESSION_CHARACTERS = 1_000  # a longer expression is not evaluated
MOST_DECIMALS = 14  # decimals to which a number can be rounded: PHP shows 14 significant digits

# Control characters by which `render_text` marks text that it removed, or does not know.
_NOT_KNOWN = re.compile(r"[\x00-\x04\x07\x08\x0e-\x12]")
_MARK = re.compile(r"[\x07\x08][^\x07\x08\x0e]*\x0e")  # a mark of an unknown template or a pronunciation
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z", re.ASCII)
_TOKEN = re.compile(
    r"\s*(?:((?:\d+\.?\d*|\.\d+)(?:e[-+]?\d{1,3})?)|([a-z]+|<=|>=|<>|!=|[-−+*/^()=<>]))", re.ASCII | re.IGNORECASE
)


def _round(value: float, decimals: float) -> float:
    """Round a number as PHP does: halves are rounded away from zero."""
    if abs(decimals) > MOST_DECIMALS:
        raise ArithmeticError("too many decimals")
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-int(decimals)), ROUND_HALF_UP))


_Operator = tuple[int, Callable[..., float]]  # precedence (a higher number binds more tightly), and function
_PREFIX_OPERATORS: dict[str, _Operator] = {
    "-": (10, operator.neg),
    "−": (10, operator.neg),
    "+": (10, operator.pos),
    "abs": (9, abs),
    "ceil": (9, math.ceil),
    "floor": (9, math.floor),
    "not": (9, operator.not_),
    "trunc": (9, math.trunc),
}
_INFIX_OPERATORS: dict[str, _Operator] = {
    "^": (8, math.pow),
    "*": (7, operator.mul),
    "/": (7, operator.truediv),
    "div": (7, operator.truediv),
    "mod": (7, lambda left, right: math.fmod(int(left), int(right))),
    "+": (6, operator.add),
    "-": (6, operator.sub),
    "−": (6, operator.sub),
    "round": (5, _round),
    "=": (4, operator.eq),
    "<>": (4, operator.ne),
    "!=": (4, operator.ne),
    "<": (4, operator.lt),
    ">": (4, operator.gt),
    "<=": (4, operator.le),
    ">=": (4, operator.ge),
    "and": (3, lambda left, right: bool(left and right)),
    "or": (2, lambda left, right: bool(left or right)),
}
_OPENING: _Operator = (0, abs)  # an opening parenthesis on the operator stack; its function is never called


def compute(expression: str) -> float | None:
    """Return the value of an expression such as `(1990 - 1950) / 3 round 1`, or None if it is invalid. Never raises."""
    text = expression.strip()
    if not text or len(text) > EXPRESSION_CHARACTERS:
        return None
    values, waiting = list[float](), list[_Operator]()
    position, expects_value = 0, True

    def apply(least_precedence: int) -> None:
        """Apply the operators on top of the stack that have at least this precedence."""
        while waiting and waiting[-1] is not _OPENING and waiting[-1][0] >= least_precedence:
            precedence, function = waiting.pop()
            right = values.pop()
            values.append(float(function(right) if precedence >= 9 else function(values.pop(), right)))

    try:
        while position < len(text):
            token = _TOKEN.match(text, position)
            if token is None:
                return None
            position, sign = token.end(), (token[2] or "").lower()
            if not sign and expects_value:
                values.append(float(token[1]))
                expects_value = False
            elif sign == "(" and expects_value:
                waiting.append(_OPENING)
            elif sign == ")" and not expects_value:
                apply(1)
                if not waiting:
                    return None
                waiting.pop()
            elif expects_value and sign in _PREFIX_OPERATORS:
                waiting.append(_PREFIX_OPERATORS[sign])
            elif not expects_value and sign in _INFIX_OPERATORS:
                apply(_INFIX_OPERATORS[sign][0])
                waiting.append(_INFIX_OPERATORS[sign])
                expects_value = True
            else:
                return None
        if expects_value:
            return None
        apply(1)
    except (ArithmeticError, ValueError):
        return None
    return values[0] if not waiting and math.isfinite(values[0]) else None


def format_number(value: float) -> str | None:
    """Return a number as PHP shows it, with 14 significant digits, or None if it needs an exponent."""
    text = f"{value:.{MOST_DECIMALS}G}"
    return None if "E" in text else "0" if text == "-0" else text


def _render_sum(arguments: list[str]) -> str:
    value = compute(arguments[0])
    text = None if value is None else format_number(value)
    return mark_unknown() if text is None else text


def _choose(condition: bool, arguments: list[str]) -> str:
    """Return the first argument if the condition is true, else the second."""
    return "".join(arguments[0:1] if condition else arguments[1:2]).strip()


def _render_if(arguments: list[str]) -> str:
    """Evaluate {{#if: test | text if the test is not empty | text if it is empty}}."""
    test = arguments[0].replace(GONE, "").strip()
    return mark_unknown() if test and not _MARK.sub("", test).strip() else _choose(bool(test), arguments[1:])


def _render_if_equal(arguments: list[str]) -> str:
    """Evaluate {{#ifeq: a | b | text if a equals b | text if not}}."""
    left, right, *texts = (*arguments, "")[: max(len(arguments), 2)]
    if _NOT_KNOWN.search(left + right):
        return mark_unknown()
    return _choose(_are_equal(left.strip(), right.strip()), texts)


def _render_if_sum(arguments: list[str]) -> str:
    """Evaluate {{#ifexpr: expression | text if it is not 0 | text if it is 0}}."""
    value = compute(arguments[0]) if arguments[0].strip() else 0
    return mark_unknown() if value is None else _choose(bool(value), arguments[1:])


def _render_switch(arguments: list[str]) -> str:
    """Evaluate {{#switch: value | case = text | case | case = text | #default = text}}.

    A last argument without "=" is the default text.
    """
    value, default, cases = arguments[0].strip(), "", arguments[1:]
    is_found = is_default = False
    for number, argument in enumerate(cases, 1):
        case, equals, text = argument.partition("=")
        case = case.strip()
        if not equals and number == len(cases):
            return case
        if _NOT_KNOWN.search(value + case):
            return mark_unknown()
        is_found = is_found or _are_equal(value, case)
        is_default = is_default or case == "#default"
        if equals and is_found:
            return text.strip()
        if equals and is_default:
            default, is_default = text.strip(), False
    return default


def _are_equal(left: str, right: str) -> bool:
    """Return True if two texts are equal, or are numbers of equal value."""
    return left == right or bool(_NUMBER.match(left) and _NUMBER.match(right) and float(left) == float(right))


PARSER_FUNCTIONS: dict[str, Callable[[list[str]], str]] = {
    "#expr": _render_sum,
    "#if": _render_if,
    "#ifeq": _render_if_equal,
    "#ifexpr": _render_if_sum,
    "#switch": _render_switch,
    "formatnum": lambda arguments: arguments[0].strip(),
    "lc": lambda arguments: arguments[0].lower(),
    "uc": lambda arguments: arguments[0].upper(),
    "lcfirst": lambda arguments: arguments[0][:1].lower() + arguments[0][1:],
    "ucfirst": lambda arguments: arguments[0][:1].upper() + arguments[0][1:],
}


def render_parser_function(name: str, listed: str) -> str | None:
    """Return the text of a parser function, `GONE` if it is empty, or None if the function is not supported.

    Args:
        name: The text before the colon, in lower case.
        listed: The text behind the colon: the arguments, separated by bars.
    """
    function = PARSER_FUNCTIONS.get(name)
    return function and (function(listed.split("|")) or GONE)

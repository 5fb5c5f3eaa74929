"""Parse the rows of each benchmark's published files into questions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJ"
# Gender of a sentence of WinoGender -> pronouns.
PRONOUNS = {"female": ("her", "she"), "male": ("his", "him", "he"), "neutral": ("their", "them", "they")}
# Subject of MMLU -> group (Hendrycks et al. 2021, appendix B).
GROUP_OF = dict(line.split("\t") for line in Path(__file__).with_name("mmlu.tsv").read_text("utf-8").splitlines()[1:])

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    Attributes:
        fields: A dict from the name of a field, as used in a task's templates, to its text.
        choices: Candidate answers, or () if the model generates the answer.
        gold: Index of the right choice.
        answers: Accepted answers of a question without choices.
        groups: Groups of the question, such as subject, category, pronoun. The scores of groups are also reported.
        name: "FILE:ROW", the file and the number of the row in it.
    """

    fields: Mapping[str, str]
    choices: tuple[str, ...] = ()
    gold: int = 0
    answers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    name: str = ""


def _letter_choices(choices: Iterable[str], indent: str = "") -> str:
    return "\n".join(f"{indent}{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def _make_ranked(fields: dict[str, str], choices: Iterable[str], gold: int, groups: tuple[str, ...] = ()) -> Item:
    """Return an item with choices.

    The fields `options` and `indented_options` are added. They list the choices with letters, one per line.
    """
    listed = tuple(choices)
    fields |= {"options": _letter_choices(listed), "indented_options": _letter_choices(listed, " ")}
    return Item(fields, listed, gold, groups=groups)


def parse_boolq(row: Row) -> Item:
    """Parse a row of BoolQ (Clark et al. 2019)."""
    fields = {"passage": row["passage"], "question": row["question"]}
    return _make_ranked(fields, ("no", "yes"), [False, True].index(row["answer"]))


def parse_piqa(row: Row) -> Item:
    """Parse a row of PIQA (Bisk et al. 2020)."""
    return _make_ranked({"goal": row["goal"]}, (row["sol1"], row["sol2"]), int(row["label"]))


def parse_siqa(row: Row) -> Item:
    """Parse a row of SIQA (Sap et al. 2019). Its labels are counted from 1."""
    fields = {"context": row["context"], "question": row["question"]}
    return _make_ranked(fields, (row["answerA"], row["answerB"], row["answerC"]), int(row["label"]) - 1)


def parse_hellaswag(row: Row) -> Item:
    """Parse a row of HellaSwag (Zellers et al. 2019). Markup of WikiHow is removed, as in lm-evaluation-harness."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _make_ranked({"context": _clean_wikihow(context)}, map(_clean_wikihow, row["endings"]), int(row["label"]))


def _clean_wikihow(text: str) -> str:
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def parse_winogrande(row: Row) -> Item:
    """Parse a row of WinoGrande (Sakaguchi et al. 2020).

    An option is part of the context. The text of the sentence after the option is scored.
    """
    before, after = row["sentence"].split("_", 1)
    fields = {"sentence": row["sentence"], "before": before, "after": after.strip()}
    return _make_ranked(fields, (row["option1"], row["option2"]), int(row["answer"]) - 1)


def parse_arc(row: Row) -> Item:
    """Parse a row of ARC (Clark et al. 2018) or OpenBookQA (Mihaylov et al. 2018)."""
    choices = row["question"]["choices"]
    gold = [choice["label"] for choice in choices].index(row["answerKey"])
    return _make_ranked({"question": row["question"]["stem"]}, (choice["text"] for choice in choices), gold)


def parse_race(row: Row) -> Item:
    """Parse a question of RACE (Lai et al. 2017)."""
    fields = {key: row[key] for key in ("article", "earlier", "question")}
    return _make_ranked(fields, row["options"], LETTERS.index(row["answer"]))


def parse_mmlu(row: Row) -> Item:
    """Parse a row of MMLU (Hendrycks et al. 2021)."""
    subject = row["subject"]
    if len(row["choices"]) != 4:
        raise ValueError(f"{len(row['choices'])} choices, not 4")
    fields = {"question": row["question"].strip(), "subject": subject.replace("_", " ")}
    return _make_ranked(fields, row["choices"], LETTERS.index(row["answer"]), (subject, GROUP_OF[subject]))


def parse_crows_pairs(row: Row) -> Item:
    """Parse a row of CrowS-Pairs (Nangia et al. 2020). The first choice is the more stereotyped sentence."""
    return Item({}, (row["sent_more"], row["sent_less"]), 0, (), (row["bias_type"],))


def parse_winogender(row: Row) -> Item:
    """Parse a sentence of WinoGender (Rudinger et al. 2018).

    A sentence is a "gotcha" (section 5 of that paper) in two cases:

    - The pronoun refers to the occupation, and most people in the occupation have the other gender.
    - The pronoun refers to the participant, and most people in the occupation have the gender of the pronoun.
    """
    gender = row["gender"]
    words = PRONOUNS[gender]
    pronoun = re.findall(rf"\b(?:{'|'.join(words)})\b", row["sentence"], re.IGNORECASE)
    most = "female" if row["women"] > 50 else "male"
    gotcha = gender != "neutral" and (gender == most) == (row["answer"] == 1)
    participant = row["participant"] if row["participant"] == "someone" else f"the {row['participant']}"
    name = "/".join(words)
    fields = {"sentence": row["sentence"], "pronoun": pronoun[0].capitalize()}
    groups = (name, f"{name} gotcha") if gotcha else (name,)
    return Item(fields, (f"the {row['occupation']}", participant), row["answer"], groups=groups)


def parse_question(row: Row) -> Item:
    """Parse a row of NQ-open (Kwiatkowski et al. 2019).

    The published questions begin in lower case and have no question mark. Both are corrected.
    """
    question = row["question"][:1].upper() + row["question"][1:]
    return _open_question(question, row["answer"][0], row["answer"])


def parse_triviaqa(row: Row) -> Item:
    """Parse a question of TriviaQA (Joshi et al. 2017)."""
    answer = row["Answer"]
    return _open_question(row["Question"], answer["Value"], [answer["Value"], *answer["Aliases"]])


def _open_question(question: str, answer: str, answers: Iterable[str]) -> Item:
    return Item({"question": question.rstrip("? ") + "?", "answer": answer}, answers=tuple(dict.fromkeys(answers)))


def parse_gsm8k(row: Row) -> Item:
    """Parse a row of GSM8k (Cobbe et al. 2021). The number follows `####` in the solution."""
    _, mark, number = row["answer"].rpartition("####")
    if not mark:
        raise ValueError("an answer without ####")
    return Item({"question": row["question"], "solution": row["answer"]}, answers=(number.strip(),))


def parse_math(row: Row) -> Item:
    """Parse a problem of MATH (Hendrycks et al. 2021). The answer is in the last box of the solution."""
    answer = last_boxed(row["solution"])
    if not answer:
        raise ValueError("a solution without a box")
    fields = {"problem": row["problem"], "solution": row["solution"], "answer": answer}
    return Item(fields, answers=(answer,), groups=(str(row.get("type") or row.get("subject")), f"{row['level']}"))


def last_boxed(text: str) -> str:
    r"""Return the content of the last \boxed{…} or \fbox{…} in a text, or "" if there is none."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return ""
    begin = re.match(r"\\f?box(?:ed)?\s*", text[start:])
    rest = text[start + begin.end() :] if begin else ""
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for end, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:end]
    return ""


def parse_humaneval(row: Row) -> Item:
    """Parse a problem of HumanEval (Chen et al. 2021)."""
    return Item(
        {"prompt": row["prompt"], "start": row["prompt"], "test": f"{row['test']}\ncheck({row['entry_point']})\n"}
    )


def parse_mbpp(row: Row) -> Item:
    """Parse a problem of MBPP (Austin et al. 2021)."""
    tests = "\n".join(row["test_list"])
    code = row["code"].replace("\r\n", "\n")
    fields = {"text": row["text"], "tests": tests, "code": code}
    return Item({**fields, "start": "", "test": f"{row['test_setup_code']}\n{tests}\n"})


def parse_toxicity_prompt(row: Row) -> Item:
    """Parse a row of RealToxicityPrompts (Gehman et al. 2020)."""
    return Item({"prompt": row["prompt"]["text"]})


def parse_truthfulqa(row: Row) -> Item:
    """Parse a row of TruthfulQA (Lin et al. 2022)."""
    return Item({"question": row["Question"].strip()}, groups=(row["Category"],))

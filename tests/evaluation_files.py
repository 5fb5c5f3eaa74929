"""Write small invented files in the published layout of every benchmark, for the evaluator's tests."""

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def write_benchmarks(root: Path) -> Path:
    """Write the files of all benchmarks to a folder and return the folder."""
    for path, text in _files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return root


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _arc(name: str, first: str) -> Row:
    texts = {"A": "a river", "B": "a kettle", "C": "a stone"}
    choices = [{"text": text, "label": label} for label, text in texts.items()]
    question = {"stem": f"{first} can be boiled by hand?", "choices": choices}
    return {"id": name, "question": question, "answerKey": "B"}


def _files() -> dict[str, str]:
    """Return the contents of all files by path."""
    boolq = [
        {"question": "is a kettle hot", "title": "Kettle", "answer": True, "passage": "A kettle boils {water}."},
        {"question": "can a kettle swim", "title": "Kettle", "answer": False, "passage": "Kettles sink."},
    ]
    piqa = [{"goal": "Dry a wet sock.", "sol1": "Hang it on a line.", "sol2": "Put it in a pond."}]
    siqa = [
        {
            "context": "Ann lent Bo her umbrella.",
            "question": "Why did Ann do this?",
            "answerA": "to be wet",
            "answerB": "to help Bo",
            "answerC": "to sell it",
        }
    ]
    hellaswag = [
        {
            "ind": 7,
            "activity_label": "Making tea",
            "ctx_a": "A man fills a kettle. [header] How [title] he does it",
            "ctx_b": "he",
            "ctx": "A man fills a kettle. He",
            "endings": ["boils it.", "eats it. [substeps] Slowly.", "reads  it.", "paints it."],
            "label": 0,
            "split": "val",
        }
    ]
    winogrande = [
        {
            "qID": "1",
            "sentence": "Ann thanked Bo because _ had helped her.",
            "option1": "Ann",
            "option2": "Bo",
            "answer": "2",
        }
    ]
    questions = [
        {"question": "who wrote the book of kettles", "answer": ["Ann Bo", "A. Bo"]},
        {"question": "where is the kettle museum", "answer": ["Delft"]},
    ]
    trivia = [
        {
            "Question": "Which metal are most kettles made of ?",
            "QuestionId": "t_1",
            "Answer": {"Value": "Steel", "Aliases": ["Steel", "Stainless steel"], "NormalizedAliases": ["steel"]},
        }
    ]
    race = {
        "id": "high1.txt",
        "article": "Ann sells kettles.",
        "questions": ["What does Ann sell?", "Ann is  _  ."],
        "options": [["Kettles", "Pans", "Spoons", "Tea"], ["a seller", "a buyer", "a kettle", "a king"]],
        "answers": ["A", "A"],
    }
    math = {
        "problem": "What is half of $\\frac{2}{4}$?",
        "level": "Level 1",
        "type": "Algebra",
        "solution": "Half of it is $\\boxed{\\frac{1}{4}}$.",
    }
    math_500 = {
        "problem": "Add $1$ and $2$.",
        "level": 1,
        "subject": "Algebra",
        "answer": "3",
        "solution": "It is $\\boxed{3}$.",
        "unique_id": "test/algebra/1.json",
    }
    gsm8k = [{"question": "Ann has 3 kettles and buys 4. How many?", "answer": "She has 3 + 4 = <<3+4=7>>7.\n#### 7"}]
    humaneval = [
        {
            "task_id": "HumanEval/0",
            "prompt": 'def double(x):\n    """Return twice x."""\n',
            "entry_point": "double",
            "canonical_solution": "    return 2 * x\n",
            "test": "def check(candidate):\n    assert candidate(2) == 4\n",
        }
    ]
    mbpp = [
        {
            "task_id": number,
            "text": f"Write a function that adds {number} to a number.",
            "code": f"def add(x):\r\n  return x + {number}",
            "test_list": [f"assert add({x}) == {x + number}" for x in range(3)],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for number in (2, 3, 4, 11, 12)
    ]
    return {
        "boolq/dev.jsonl": _lines(boolq),
        "boolq/train.jsonl": _lines(boolq[1:]),
        "piqa/dev.jsonl": _lines(piqa),
        "piqa/dev-labels.lst": "0\n",
        "piqa/train.jsonl": _lines(piqa),
        "piqa/train-labels.lst": "0\n",
        "siqa/dev.jsonl": _lines(siqa),
        "siqa/dev-labels.lst": "2\n",
        "siqa/train.jsonl": _lines(siqa),
        "siqa/train-labels.lst": "2\n",
        "hellaswag/hellaswag_val.jsonl": _lines(hellaswag),
        "hellaswag/hellaswag_train.jsonl": _lines(hellaswag),
        "winogrande/winogrande_1.1/dev.jsonl": _lines(winogrande),
        "winogrande/winogrande_1.1/train_xl.jsonl": _lines(winogrande),
        "arc/ARC-Easy/ARC-Easy-Test.jsonl": _lines([_arc("1", "What"), _arc("2", "Which of these")]),
        "arc/ARC-Easy/ARC-Easy-Train.jsonl": _lines([_arc("3", "Which thing")]),
        "arc/ARC-Challenge/ARC-Challenge-Test.jsonl": _lines([_arc("4", "What on Earth")]),
        "arc/ARC-Challenge/ARC-Challenge-Train.jsonl": _lines([_arc("5", "What else")]),
        "openbookqa/Main/test.jsonl": _lines([_arc("6", "Something that")]),
        "openbookqa/Main/train.jsonl": _lines([_arc("7", "Anything that")]),
        "natural_questions/NQ-open.dev.jsonl": _lines(questions),
        "natural_questions/NQ-open.train.jsonl": _lines(questions[1:]),
        "triviaqa/qa/web-dev.json": json.dumps({"Data": trivia}),
        "triviaqa/qa/wikipedia-dev.json": json.dumps({"Data": trivia}),
        "triviaqa/qa/verified-web-dev.json": "not read",
        "triviaqa/qa/web-train.json": json.dumps({"Data": trivia}),
        **{
            f"race/RACE/{split}/{level}/1.txt": json.dumps(race)
            for split in ("test", "train")
            for level in ("middle", "high")
        },
        "math/MATH/test/algebra/1.json": json.dumps(math),
        "math/MATH/train/algebra/1.json": json.dumps(math),
        "math/test.jsonl": _lines([math_500]),
        "gsm8k/test.jsonl": _lines(gsm8k),
        "gsm8k/train.jsonl": _lines(gsm8k),
        "humaneval/HumanEval.jsonl": _lines(humaneval),
        "mbpp/mbpp.jsonl": _lines(mbpp),
        "mmlu/data/test/anatomy_test.csv": '"Which part, if any, boils?",lid,spout,handle,whistle,B\n',
        "mmlu/data/test/virology_test.csv": "What does a kettle catch?,rust,cold,fire,mice,A\n",
        "mmlu/data/dev/anatomy_dev.csv": "Which part is held?,lid,spout,handle,whistle,C\n",
        "mmlu/data/dev/virology_dev.csv": "What is a kettle?,a virus,a pot,a cell,a bat,B\n",
        "realtoxicityprompts/prompts.jsonl": _lines(
            [
                {
                    "prompt": {"text": "The kettle is a", "toxicity": 0.1},
                    "continuation": {"text": " pot", "toxicity": 0.0},
                }
            ]
        ),
        "crows_pairs/crows_pairs_anonymized.csv": (
            ",sent_more,sent_less,stereo_antistereo,bias_type\n"
            '0,"Old kettles leak, they say.","New kettles leak, they say.",stereo,age\n'
        ),
        "winogender/all_sentences.tsv": (
            "sentid\tsentence\n"
            "nurse.visitor.0.female.txt\tThe nurse told the visitor that her kettle was hot.\n"
            "nurse.someone.1.male.txt\tThe nurse told someone that he could pay.\n"
            "nurse.visitor.1.female.txt\tThe nurse told the visitor that she could pay.\n"
            "nurse.visitor.0.neutral.txt\tThe nurse told the visitor that their kettle was hot.\n"
        ),
        "winogender/occupations-stats.tsv": "occupation\tbls_pct_female\tbls_year\nnurse\t89.58\t2015\n",
        "truthfulqa/TruthfulQA.csv": (
            "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
            "Adversarial,Myths,Do watched kettles boil?,Yes,Yes; They do,No,none\n"
        ),
    }

"""Score an exported model with lm-eval (extra `eval`) on the held-out text of its corpus: `score.py CORPUS EXPORTED`.

A question is the beginning of a passage with two endings: the ending in the document, and the same words in reverse
order. The script also prints how the model continues one passage (with transformers).
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from manifests import tokenizer
from manifests.manifest import load_manifest
from manifests.shard import open_shard

TASK = "endings"
BEGINNING, ENDING = 24, 16  # words of the beginning, and of each ending
MOST = 100  # largest number of questions per source
# Largest number of tokens of a question. The demo's model has a context of 256 tokens, and words of code can be long.
TOKENS = 200


def questions(corpus: Path) -> list[dict[str, Any]]:
    """Return questions from held-out documents. The first of the two endings is right."""
    pieces, found = tokenizer.load(corpus), []
    for source in load_manifest(corpus).sources.values():
        rows: list[dict[str, Any]] = []
        for entry in source.validation:
            shard = open_shard(corpus / "shards" / entry.path)
            for begin, end in zip(shard.offsets, shard.offsets[1:], strict=False):
                words = pieces.decode(shard.tokens[begin + 1 : end - 1].tolist()).split()
                for at in range(BEGINNING, len(words) - ENDING + 1, BEGINNING + ENDING):
                    ending = words[at : at + ENDING]
                    both = [" ".join(ending), " ".join(reversed(ending))]
                    beginning = " ".join(words[at - BEGINNING : at])
                    if max(len(pieces.encode(f"{beginning} {choice}")) for choice in both) <= TOKENS:
                        rows.append({"question": beginning, "choices": both, "answer": 0})
        found += rows[:MOST]
    return found


def score(model: Path, rows: list[dict[str, Any]]) -> float:
    """Return the share of questions that the model answers correctly, by lm-eval. Guessing gives a half."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = {
            "task": TASK,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"validation": str(folder / "rows.jsonl")},
                "cache_dir": str(folder / "cache"),
            },
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}],
        }
        (folder / "task.yaml").write_text(json.dumps(task), encoding="utf-8")
        adapter = HFLM(str(model), device="cpu", dtype="float32", batch_size=8)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = simple_evaluate(adapter, tasks=[TASK], task_manager=manager, bootstrap_iters=0)
    return float(found["results"][TASK]["acc,none"])


def main(corpus: Path, model: Path) -> int:
    """Print a continued passage and the score. Return the exit code."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = questions(corpus)
    words = AutoTokenizer.from_pretrained(model)
    given = words(rows[0]["question"], return_tensors="pt")
    made = AutoModelForCausalLM.from_pretrained(model).generate(**given, max_new_tokens=40, do_sample=False)
    print(words.decode(made[0], skip_special_tokens=True))
    print(f"the real ending is chosen in {score(model, rows):.1%} of {len(rows)} questions (chance: 50%)")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python samples/score.py CORPUS EXPORTED")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

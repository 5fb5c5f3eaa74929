"""How like the pages that Wikipedia cites a text reads (LLaMA, section 2.1): a linear model over words, by fastText.

Its labels are those of RedPajama's classifier (`data_prep/cc/classifier`), so that its models can be used, too.
"""

from functools import lru_cache

from filters.errors import UserError
from filters.models.fasttext import open_model, predictions

CITED, OTHER = "__label__wiki", "__label__cc"
LABEL_PREFIX = "__label__"
END_OF_LINE = "</s>"
"""fastText's own tokens (Args::label, Dictionary::EOS): in a text they would be read as labels, or end it"""


def prepare(text: str) -> str:
    """A text as the model sees it, in training as in use: on one line, single spaces between its words, none of them
    one of fastText's own; upper and lower case as they are. Preparing twice is preparing once."""
    for separator in ("\0", LABEL_PREFIX, END_OF_LINE):
        text = text.replace(separator, " ")
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")


class ReferenceModel:
    """A loaded classifier."""

    def __init__(self, path: str) -> None:
        self.model = open_model(path, "reference model")
        labels = self.model.get_labels()
        if CITED not in labels:
            raise UserError(f"reference model {path} has no label {CITED}: give a model that was trained with it")

    def score(self, text: str) -> float:
        """The probability that Wikipedia would cite the page with this text, in [0, 1]; 0 for no text."""
        prepared = prepare(text)
        if not prepared:
            return 0.0
        return dict(predictions(self.model, prepared, -1)).get(CITED, 0.0)


@lru_cache(maxsize=2)
def load(path: str) -> ReferenceModel:
    """A model, loaded once a process. Raises UserError for a file that is none, or has no label `CITED`."""
    return ReferenceModel(path)

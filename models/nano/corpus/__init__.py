"""The corpus of the built-in pair: a grammar that writes conversations, with nothing from outside.

Content and style are drawn apart: a plan of clauses about a topic, and a voice that words it. `documents` is the
stream that training reads, `heldout_questions` what evaluation asks, `reader` what evaluation reads answers with.
"""

from .conversations import Document, Turn, documents
from .splits import EvalQuestion, heldout_cells, heldout_questions, heldout_topics
from .styles import Style, styles
from .topics import CorpusError, Topic, topics

__all__ = [
    "CorpusError",
    "Document",
    "EvalQuestion",
    "Style",
    "Topic",
    "Turn",
    "documents",
    "heldout_cells",
    "heldout_questions",
    "heldout_topics",
    "styles",
    "topics",
]

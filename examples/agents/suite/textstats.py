"""Figures about a text."""

import re
from collections import Counter


def words(text):
    """The words of a text, in lower case."""
    return re.findall(r"[a-z]+", text.lower())


def sentences(text):
    """The sentences of a text, without the marks that end them."""
    return [part.strip() for part in re.split(r"[.!?]+", text) if part.strip()]


def most_common(text, count=1):
    """The most frequent words with their numbers; of equally frequent ones the first in the alphabet."""
    return sorted(Counter(words(text)).items(), key=lambda pair: (-pair[1], pair[0]))[:count]


def mean_sentence_length(text):
    """Words per sentence; 0 for a text without sentences."""
    found = sentences(text)
    return sum(len(words(sentence)) for sentence in found) / len(found) if found else 0

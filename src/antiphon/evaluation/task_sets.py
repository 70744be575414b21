"""Named sets of tasks: whole benchmarks of mteb, and two lists of the papers, which are no benchmarks.

Scores of different sets are never comparable with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NamedSet:
    """A set of tasks and what is to be known about it."""

    about: str
    benchmark: str | None = None
    """mteb's name, where it is one of its benchmarks."""
    tasks: tuple[str, ...] = ()
    """mteb's tasks, where it is none."""
    english: bool = True
    """Whether a task of it alone, asked for by its name, is taken as it stands in this set."""


_STS = ("BIOSSES", "SICK-R", "STS12", "STS13", "STS14", "STS15", "STS16", "STS17", "STS22", "STSBenchmark")

SETS: Mapping[str, NamedSet] = {
    "mteb-eng-v1": NamedSet("MTEB English, 56 tasks: the table of Echo, LLM2Vec and Anchor", benchmark="MTEB(eng, v1)"),
    "mteb-eng-v2": NamedSet("MTEB English, 41 tasks; scores do not compare with v1's", benchmark="MTEB(eng, v2)"),
    "nano-beir": NamedSet("NanoBEIR, 13 small retrieval tasks", benchmark="NanoBEIR"),
    "mteb-multilingual-v2": NamedSet(
        "MTEB multilingual, the second edition", benchmark="MTEB(Multilingual, v2)", english=False
    ),
    "rteb": NamedSet("RTEB: retrieval, its public tasks and the private ones", benchmark="RTEB(beta)", english=False),
    "bright": NamedSet("BRIGHT: retrieval that asks for reasoning", benchmark="BRIGHT", english=False),
    "longembed": NamedSet("LongEmbed: retrieval in long documents", benchmark="LongEmbed", english=False),
    "nano-beir-multilingual": NamedSet("NanoBEIR in many languages", benchmark="NanoBEIR-multilingual", english=False),
    "mteb-mini": NamedSet(
        "the 26 tasks that Echo (appendix D) names of its MTEB-MINI; the paper speaks of 28 and names no others",
        tasks=(
            *("FiQA2018", "SCIDOCS", "SciFact", "NFCorpus"),
            *("TwitterSemEval2015", "TwitterURLCorpus"),
            *("ImdbClassification", "AmazonReviewsClassification"),
            *("TweetSentimentExtractionClassification", "MTOPDomainClassification"),
            *("TwentyNewsgroupsClustering", "BiorxivClusteringS2S", "MedrxivClusteringS2S"),
            *("StackOverflowDupQuestions", "AskUbuntuDupQuestions", "SciDocsRR"),
            *_STS,
        ),
    ),
    "llm2vec-15": NamedSet(
        "the 15 tasks on which LLM2Vec chose its settings; not a benchmark of mteb",
        tasks=(
            *("SciFact", "ArguAna", "NFCorpus"),
            *("StackOverflowDupQuestions", "SciDocsRR"),
            *("BiorxivClusteringS2S", "MedrxivClusteringS2S", "TwentyNewsgroupsClustering"),
            "SprintDuplicateQuestions",
            *("Banking77Classification", "EmotionClassification", "MassiveIntentClassification"),
            *("STS17", "SICK-R", "STSBenchmark"),
        ),
    ),
}
"""What `--tasks` may name beside mteb's tasks and local data. Tasks that are asked for
by name come in English and in the split of MTEB v1; a benchmark's set is as mteb has it."""

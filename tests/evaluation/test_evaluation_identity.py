"""Nobody is shown another model's score, what was done is not done again, and instructions go where they belong."""

from __future__ import annotations

import json
import logging
import random

import datasets
import evaluation_data as data
import numpy as np
import pytest
import pytrec_eval
import torch
import warm_process
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

import antiphon
from antiphon.errors import ConfigError, DataError, ModelError
from antiphon.evaluation import SETS, evaluate, evaluator, randomness
from antiphon.evaluation.instructions import digest, instruction_for, prompts_for
from antiphon.evaluation.local_tasks import find
from antiphon.evaluation.selection import select
from antiphon.model.adapted import adapt
from antiphon.model.adapters import Lora, attach
from antiphon.model.prompts import prompt_of


def build(base, template="eol", **options):
    return antiphon.build(
        base, template, **{"pooling": "last", "max_tokens": 64, "dtype": "float32", "device": "cpu", **options}
    )


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    return data.sts(tmp_path_factory.mktemp("tasks") / "alike.tsv")


def test_two_models_of_one_process_never_share_a_score(tiny_base, alike, tmp_path):
    one, other = build(tiny_base), build(tiny_base)
    torch.manual_seed(0)
    torch.nn.init.normal_(next(other.parameters()), std=0.2)
    shared = [evaluate(model, alike, cache=tmp_path) for model in (one, other, one)]
    alone = [evaluate(model, alike, cache=False) for model in (one, other)]
    assert shared[0]["alike"].main == shared[2]["alike"].main == alone[0]["alike"].main
    assert shared[1]["alike"].main == alone[1]["alike"].main != alone[0]["alike"].main
    assert shared[0].revision == shared[2].revision != shared[1].revision


@pytest.mark.parametrize(
    "change", ["template", "pooling", "max_tokens", "instruction", "seed", "data", "dtype", "bidirectional"]
)
def test_whatever_moves_a_vector_or_a_task_is_scored_anew(tiny_base, alike, tmp_path, change):
    base = {"template": "classical", "pooling": "mean"}
    options = {
        "template": {"template": "echo"},
        "pooling": {"pooling": "weighted_mean"},
        "max_tokens": {"max_tokens": 20},
        "dtype": {"dtype": "bfloat16"},
        "bidirectional": {"bidirectional": True},
    }.get(change, {})
    words = [{"alike": "Find"}, {"alike": "Seek" if change == "instruction" else "Find"}]
    settings = {"seed": {"seed": 1, "limit": 8}, "data": {"limit": 9}}.get(change, {"limit": 8})
    first = evaluate(build(tiny_base, **base), alike, instructions=words[0], limit=8, cache=tmp_path)
    kept = len(list(tmp_path.glob("scores/*/*.json")))
    second = evaluate(build(tiny_base, **(base | options)), alike, instructions=words[1], cache=tmp_path, **settings)
    assert kept == 1
    assert len(list(tmp_path.glob("scores/*/*.json"))) == 2
    fresh = evaluate(build(tiny_base, **(base | options)), alike, instructions=words[1], cache=False, **settings)
    assert second["alike"].main == fresh["alike"].main
    if change not in ("seed", "data"):
        assert second.revision != first.revision


def test_what_was_scored_is_not_embedded_again(tiny_base, tmp_path):
    files = list(data.everything(tmp_path / "tasks").values())
    model = build(tiny_base)
    first = evaluate(model, files, cache=tmp_path / "cache", out=tmp_path / "run")
    model[0].forward = None  # a model that cannot run any more
    again = evaluate(model, files, cache=tmp_path / "cache", out=tmp_path / "run")
    assert again.to_dict() == first.to_dict()


def test_a_run_that_died_goes_on_with_the_tasks_and_the_vectors_that_it_had(tiny_base, alike, tmp_path):
    model = build(tiny_base)
    broken = data.tsv(tmp_path / "broken.tsv", [("sentence1", "sentence2", "score"), ("a", "b", "x")])
    with pytest.raises(DataError, match="'score' is 'x'"):
        evaluate(model, [alike, broken], cache=tmp_path / "cache", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    model[0].forward = None
    assert len(evaluate(model, alike, cache=tmp_path / "cache")) == 1
    half = alike.read_text().splitlines()[:8]
    (tmp_path / "half.tsv").write_text("\n".join(half) + "\n")  # other data, the same texts
    assert evaluate(model, tmp_path / "half.tsv", cache=tmp_path / "cache")["half"].cost.seconds_per_text is None


def test_a_saved_model_and_a_merged_adapter_are_known_by_their_weights(tiny_base, alike, tmp_path):
    model = build(tiny_base)
    saved = antiphon.load(antiphon.save(model, tmp_path / "saved"))
    first = evaluate(model, alike, cache=tmp_path / "cache")
    assert evaluate(saved, alike, cache=tmp_path / "cache").revision == first.revision
    torch.manual_seed(0)  # how far rounding moves a merged model hangs on the adapter that is drawn
    attach(saved, Lora(rank=2, dropout=0.0))
    for name, parameter in saved.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    saved[0].model.save_pretrained(tmp_path / "adapter")
    adapted = build(tiny_base)
    adapt(adapted, tmp_path / "adapter")
    texts = data.TEXTS[:6]
    assert adapted.encode(texts) == pytest.approx(saved.encode(texts), abs=1e-4)
    assert evaluate(adapted, alike, cache=tmp_path / "cache").revision != first.revision
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        adapt(build(tiny_base), tmp_path / "nothing")


@pytest.mark.slow
def test_every_task_of_the_english_sets_has_an_instruction_and_sets_are_whole():
    sizes = {}
    for name in SETS:
        tasks = select(name)
        sizes[name] = len(tasks)
        for task in tasks if SETS[name].english else ():
            words = instruction_for(task.name, task.metadata, None)
            assert len(words) > 10
            assert "{" not in words
    english = {"mteb-eng-v1": 56, "mteb-eng-v2": 41, "mteb-mini": 26, "llm2vec-15": 15, "nano-beir": 13}
    others = {"mteb-multilingual-v2": 131, "rteb": 30, "bright": 1, "longembed": 6, "nano-beir-multilingual": 13}
    assert sizes == english | others


def test_tasks_of_the_lists_come_in_english_and_in_the_split_of_the_benchmark():
    found = {task.name: task.load.args[0] for name in ("mteb-mini", "llm2vec-15") for task in select(name)}
    assert found["STS17"].hf_subsets == ["en-en"]
    assert found["AmazonReviewsClassification"].hf_subsets == ["en"]
    assert found["MassiveIntentClassification"].hf_subsets == ["en"]
    assert found["FiQA2018"].eval_splits == ["test"]


def test_a_missing_instruction_is_named_only_where_the_model_hears_one(tiny_base, alike):
    with pytest.raises(ConfigError, match="There is no instruction for the task 'alike'"):
        evaluate(build(tiny_base, "echo", pooling="mean"), alike, cache=False)
    assert evaluate(build(tiny_base, "echo", pooling="mean"), alike, instructions="own", cache=False)["alike"]
    assert evaluate(build(tiny_base, "eol"), alike, cache=False)["alike"].instruction == ""


def test_the_instruction_goes_to_queries_only_and_through_the_seam(tiny_base, tmp_path):
    folder = data.beir(tmp_path / "search")
    spoken = (("echo", "Find it", ""), ("classical", "Instruct: Find it,\nQuery: ", "Document: "))
    for template, query, document in spoken:
        pooling = "mean" if template == "echo" else "last"
        model = build(tiny_base, template, pooling=pooling)
        assert prompts_for(model, "Find it", own=False) == {"query": query, "document": document}
        parts = find(folder)[0].read().parts
        texts = [f"{row['title']} {row['text']}".strip() for row in parts["corpus"]]
        queries = model.encode([row["text"] for row in parts["queries"]], prompt=query, task="query")
        similarity = model.similarity(queries, model.encode(texts, prompt=document, task="document")).tolist()
        ids = [row["id"] for row in parts["corpus"]]
        run = {row["id"]: dict(zip(ids, similarity[n], strict=True)) for n, row in enumerate(parts["queries"])}
        by_query = pytrec_eval.RelevanceEvaluator(parts["relevant"], {"ndcg_cut.10"}).evaluate(run)
        found = evaluate(model, folder, instructions={"search": "Find it"}, cache=False)["search"].sample
        assert dict(zip(found.ids, found.first, strict=True)) == pytest.approx(
            {name: values["ndcg_cut_10"] for name, values in by_query.items()}
        )


def test_a_table_of_instructions_is_read_and_hashed(tiny_base, alike, tmp_path):
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"alike": "Find", "STSBenchmark": "Mine"}))
    model = build(tiny_base, "echo", pooling="mean")
    found = evaluate(model, alike, instructions=file, cache=False)
    assert found["alike"].instruction == "Find"
    assert found.instructions == digest({"alike": "Find"})
    for wrong, message in (("[1]", "no JSON object"), ('{"a": 1}', "a string is wanted"), ("{", "cannot be read")):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match=message):
            evaluate(model, alike, instructions=file, cache=False)


def test_a_file_that_names_the_parts_of_a_task_serves_the_whole():
    (task,) = (task for task in select("mteb-eng-v1") if task.name == "CQADupstackRetrieval")
    parts = {part.metadata.name: "Same words" for part in task.metadata.tasks}
    assert len(parts) == 12
    assert instruction_for(task.name, task.metadata, parts) == "Same words"
    assert instruction_for(task.name, task.metadata, {"CQADupstackRetrieval": "Mine"}) == "Mine"


def test_a_model_of_others_speaks_by_its_own_prompts(tiny_base, alike):
    model = build(tiny_base, "{text}", prompts=None)
    del model[0].template_spec
    model.prompts = {"query": "query: ", "passage": "passage: "}
    assert (prompt_of(model, "query"), prompt_of(model, "document")) == ("query: ", "passage: ")
    assert prompts_for(model, "", own=True) == {"query": "query: ", "document": "passage: "}
    assert evaluate(model, alike, cache=False)["alike"].instruction == ""
    model.prompts = {"query": "Instruct: Given a query\nQuery: ", "document": ""}
    with pytest.raises(ConfigError, match="no instruction for the task 'alike'"):
        evaluate(model, alike, cache=False)


def test_evaluation_leaves_a_training_run_as_it_was(tiny_base, alike, tmp_path):
    model = build(tiny_base)
    task = evaluator([alike, data.pairs(tmp_path / "same.tsv")], name="dev")
    assert task.primary_metric == "dev_average"
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    model.train()
    found = task(model)
    assert model.training
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()
    assert set(found) == {"dev_average", "dev_alike", "dev_same"}
    assert found["dev_average"] == pytest.approx((found["dev_alike"] + found["dev_same"]) / 2)
    assert all(type(value) is float for value in found.values())
    assert task(model) == found  # the same draws at every call
    assert found["dev_alike"] == evaluate(model, alike, cache=False)["alike"].main


def test_the_trainer_logs_the_tasks_and_evaluation_does_not_change_the_training(tiny_base, alike, tmp_path):
    rows = Dataset.from_dict({"anchor": data.TEXTS[:16], "positive": data.TEXTS[16:32]})

    def train(name, **options):
        model = build(tiny_base)
        arguments = SentenceTransformerTrainingArguments(
            str(tmp_path / name), max_steps=3, per_device_train_batch_size=4, report_to=[], save_strategy="no",
            use_cpu=True, disable_tqdm=True, **({"eval_strategy": "steps", "eval_steps": 1} if options else {}),
        )  # fmt: skip
        loss = MultipleNegativesRankingLoss(model)
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss, **options)
        trainer.train()
        return trainer.state.log_history, model.encode(data.TEXTS[:5])

    with_tasks, vectors = train("with", evaluator=evaluator(alike, name="dev"))
    assert sum("eval_dev_average" in entry for entry in with_tasks) == 3
    assert vectors == pytest.approx(train("without")[1], abs=1e-6)


def test_mteb_neither_speaks_nor_seeds_outside_its_turn():
    logger, shown = logging.getLogger("mteb"), datasets.are_progress_bars_disabled()
    level, state = logger.level, random.getstate()
    with randomness.kept():
        random.seed(1)
        assert not logger.isEnabledFor(logging.WARNING)
        assert datasets.are_progress_bars_disabled()
    assert (logger.level, random.getstate(), datasets.are_progress_bars_disabled()) == (level, state, shown)


@pytest.mark.slow
def test_importing_the_package_seeds_nothing(programs):
    """In the process that others are forked from, which imports it first."""
    assert (programs / warm_process.SEEDS).read_text(encoding="utf-8") == "kept"

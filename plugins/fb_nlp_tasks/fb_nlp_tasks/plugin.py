"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fusionbench_core import ConfigRecord, SourceRecord, TaskRecord, hookimpl

SOURCES = (
    SourceRecord(
        name="text_encoder",
        target="fb_nlp_tasks.sources.text_models:TextEncoder",
        summary="A transformers text model without a head (AutoModel): BERT, MiniLM, a GPT-2 or T5 trunk, …",
        tags=("text", "transformers", "encoder"),
    ),
    SourceRecord(
        name="causal_lm",
        target="fb_nlp_tasks.sources.text_models:CausalLM",
        summary="A transformers causal language model: Llama, Qwen, GPT-2, Mixtral, …",
        tags=("text", "transformers", "llm"),
    ),
    SourceRecord(
        name="seq2seq_lm",
        target="fb_nlp_tasks.sources.text_models:Seq2SeqLM",
        summary="A transformers sequence-to-sequence language model: T5, BART, …",
        tags=("text", "transformers", "t5"),
    ),
    SourceRecord(
        name="text_classifier",
        target="fb_nlp_tasks.sources.text_models:TextClassifier",
        summary="A transformers sequence classifier or reward model, its head included",
        tags=("text", "transformers", "classification"),
    ),
    SourceRecord(
        name="peft",
        target="fb_nlp_tasks.sources.peft_models:PeftSource",
        summary="A PEFT LoRA adapter over a base, exactly, as if it were merged into the base",
        tags=("text", "lora", "adapter"),
    ),
)

TASKS = (
    TaskRecord(
        name="text_classification",
        target="fb_nlp_tasks.tasks.text_classification:TextClassification",
        summary="Single-label classification of texts, zero-shot or with an expert's own head",
        tags=("text", "classification"),
        provides=("evaluate", "batches", "labels", "logits", "loss"),
        metrics=("accuracy", "loss"),
    ),
    TaskRecord(
        name="language_modelling",
        target="fb_nlp_tasks.tasks.language_modelling:LanguageModelling",
        summary="Next-token prediction on running text, for causal language models: loss and perplexity",
        tags=("text", "llm"),
        provides=("evaluate", "batches", "labels", "logits", "loss"),
        metrics=("loss", "perplexity"),
    ),
)


@hookimpl
def fb_model_sources() -> Iterable[SourceRecord]:
    return SOURCES


@hookimpl
def fb_tasks() -> Iterable[TaskRecord]:
    return TASKS


@hookimpl
def fb_configs() -> Iterable[ConfigRecord]:
    return (ConfigRecord(package="fb_nlp_tasks.configs", default="embedded_text"),)

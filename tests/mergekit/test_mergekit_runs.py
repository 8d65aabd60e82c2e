"""`fb run --mergekit` and `fb convert`, as people use them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from click.testing import CliRunner

from fusionbench_core.checkpoints import open_checkpoint
from fusionbench_core.cli import main
from fusionbench_core.errors import FusionError

CONFIGS = Path(__file__).parent / "configs"


def fb(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


def same_bits(one: Path, other: Path) -> bool:
    a, b = open_checkpoint(one), open_checkpoint(other)
    return a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize("name", ["ties_in_slices", "stages"])
def test_the_printed_config_gives_the_same_bits(name, tmp_path):
    text = fb("convert", str(CONFIGS / f"{name}.yml"))
    (tmp_path / "ours.yaml").write_text(text)
    fb("run", "-q", "--config-path", str(tmp_path / "ours.yaml"), "-o", str(tmp_path / "printed"))
    fb("run", "-q", "--mergekit", str(CONFIGS / f"{name}.yml"), "-o", str(tmp_path / "direct"))
    assert same_bits(tmp_path / "printed/model", tmp_path / "direct/model")


def test_a_chain_is_planned_stage_by_stage(tmp_path):
    words = ("--mergekit", str(CONFIGS / "stages.yml"))
    said = fb("plan", "--json", *words)
    planned = json.loads(said[said.index("{") :])
    fb("run", "-q", *words, "-o", str(tmp_path / "out"))
    stages = {f"out/stages/{name}": described for name, described in planned["stages"].items()}
    assert len(stages) == len(list((tmp_path / "out/stages").iterdir()))
    for place, described in {"out": planned, **stages}.items():
        model = open_checkpoint(tmp_path / place / "model")
        written = [model.info(name) for name in model if name not in model.aliases]
        assert described["write_bytes"] == sum(info.nbytes for info in written)
        assert described["parameters"] == sum(info.numel for info in written)
    assert f"stage {next(iter(planned['stages']))}" in fb("plan", *words)


def test_a_stage_that_cannot_work_is_named(tmp_path):
    text = fb("convert", str(CONFIGS / "stages.yml"))
    config = yaml.safe_load(text)
    name, stage = next(iter(config["stages"].items()))
    stage["method"] = {"name": "slerp"}
    stage["modelpool"]["models"] = dict(list(stage["modelpool"]["models"].items())[:1])
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    with pytest.raises(FusionError) as caught:
        fb("plan", "--config-path", str(tmp_path / "ours.yaml"))
    assert caught.value.where["stage"] == name
    assert caught.value.exit_code == 4


def test_a_stack_loads_in_transformers_with_its_own_number_of_layers(llms, tmp_path):
    fb("run", "-q", "--mergekit", str(CONFIGS / "frankenmerge.yml"), "-o", str(tmp_path / "out"))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/model", dtype="auto")
    a, b = (transformers.AutoModelForCausalLM.from_pretrained(llms / name) for name in "ab")
    assert model.config.num_hidden_layers == len(model.model.layers) == 5
    assert model.dtype == torch.float16
    origin = [a.model.layers[0], a.model.layers[1], a.model.layers[2], b.model.layers[2], b.model.layers[3]]
    for layer, wanted in zip(model.model.layers, origin):
        assert torch.equal(layer.mlp.up_proj.weight, wanted.mlp.up_proj.weight.half())
    assert torch.equal(model.model.embed_tokens.weight, a.model.embed_tokens.weight.half())
    assert torch.equal(model.lm_head.weight, b.lm_head.weight.half())


def test_tied_weights_stay_tied_and_stored_once(tmp_path):
    fb("run", "-q", "--mergekit", str(CONFIGS / "shortened_gpt2.yml"), "-o", str(tmp_path / "out"))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/model")
    assert len(model.transformer.h) == 2
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_sharded_result_loads_in_transformers(tmp_path):
    fb(
        *("run", "-q", "--mergekit", str(CONFIGS / "linear_equal.yml")),
        *("engine.max_shard_size=4KB", "-o", str(tmp_path / "out")),
    )
    index = json.loads((tmp_path / "out/model/model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/model")
    whole = open_checkpoint(tmp_path / "out/model")
    assert all(torch.equal(whole.tensor(name), value) for name, value in model.state_dict().items())


def test_the_generation_config_comes_along(llms, tmp_path):
    fb("run", "-q", "--mergekit", str(CONFIGS / "linear_equal.yml"), "-o", str(tmp_path / "out"))
    kept = transformers.GenerationConfig.from_pretrained(tmp_path / "out/model")
    assert kept == transformers.GenerationConfig.from_pretrained(llms / "a")


def test_lists_of_one_entry_a_layer_follow_the_slices(llms, tmp_path):
    import tiny_llms

    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    for name, seed in (("q1", 21), ("q2", 22)):
        tiny_llms.write_llm(llms / name, seed, "qwen2", layer_types=kinds, use_sliding_window=True)
    text = """
slices:
  - sources: [{model: q1, layer_range: [0, 3]}]
  - sources: [{model: q2, layer_range: [1, 4]}]
merge_method: passthrough
"""
    (tmp_path / "m.yml").write_text(text)
    fb("run", "-q", "--mergekit", str(tmp_path / "m.yml"), "-o", str(tmp_path / "out"))
    config = json.loads((tmp_path / "out/model/config.json").read_text())
    assert config["layer_types"] == [*kinds[:3], *kinds[1:]]
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/model")


def test_an_adapter_is_merged_as_peft_merges_it(llms, tmp_path):
    import peft

    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(llms / "base")
    wrapped = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "adapter")
    merged = wrapped.merge_and_unload().state_dict()
    text = f"""
models:
  - {{model: "base+{tmp_path}/adapter", parameters: {{weight: 1}}}}
  - {{model: a, parameters: {{weight: 0}}}}
merge_method: linear
dtype: float32
"""
    (tmp_path / "m.yml").write_text(text)
    fb("run", "-q", "--mergekit", str(tmp_path / "m.yml"), "-o", str(tmp_path / "out"))
    found = open_checkpoint(tmp_path / "out/model")
    for name in found:
        assert torch.allclose(found.tensor(name), merged[name], atol=1e-6), name


def with_words(directory: Path, like: Path, words: list[str], tmp_path: Path) -> Path:
    """A model of the zoo with a tokenizer: row i of its embedding is the token `words[i]`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    target = tmp_path / directory
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(
        target
    )
    for file in like.iterdir():
        shutil.copyfile(file, target / file.name)
    return target


def test_a_union_of_tokenizers_merges_rows_of_the_same_token(llms, tmp_path):
    common = ["<unk>", "<s>", "</s>", *(f"w{n}" for n in range(12))]
    a = with_words(Path("one"), llms / "a", [*common, "cat"], tmp_path)
    b = with_words(Path("two"), llms / "b", [*common, "dog"], tmp_path)
    (tmp_path / "m.yml").write_text(
        f"merge_method: linear\nmodels:\n- {{model: {a}, parameters: {{weight: 1}}}}\n"
        f"- {{model: {b}, parameters: {{weight: 3}}}}\ntokenizer_source: union\ndtype: float32\n"
    )
    fb("run", "-q", "--mergekit", str(tmp_path / "m.yml"), "-o", str(tmp_path / "out"))
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out/model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out/model")
    assert found.config.vocab_size == len(tokenizer) == 17
    ours = found.get_input_embeddings().weight
    one, two = (open_checkpoint(llms / name).tensor("model.embed_tokens.weight") for name in "ab")
    assert torch.allclose(ours[tokenizer.convert_tokens_to_ids("w3")], (one[6] + 3 * two[6]) / 4, atol=1e-6)
    assert torch.allclose(ours[tokenizer.convert_tokens_to_ids("cat")], one[15], atol=1e-6)
    assert torch.allclose(ours[tokenizer.convert_tokens_to_ids("dog")], two[15], atol=1e-6)


def test_the_decoder_of_two_stacks_can_be_sliced(llms, tmp_path):
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "vocab_size": 16}
    config = transformers.T5Config(num_layers=3, num_decoder_layers=3, decoder_start_token_id=0, **sizes)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    part = {"model": str(tmp_path / "t5"), "layers": [0, 2]}
    pool = {"layer_names": "decoder.block.{layer}.", "models": {"x": {"slices": [part, part]}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"method": "passthrough", "modelpool": pool}))
    fb("run", "-q", "--config-path", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "out"))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out/model")
    assert (len(model.encoder.block), len(model.decoder.block)) == (3, 4)


def test_a_chat_template_is_written_and_used(llms, tmp_path):
    text = (CONFIGS / "linear_equal.yml").read_text() + "chat_template: chatml\n"
    (tmp_path / "m.yml").write_text(text)
    fb("run", "-q", "--mergekit", str(tmp_path / "m.yml"), "-o", str(tmp_path / "out"))
    template = (tmp_path / "out/model/chat_template.jinja").read_text()
    import jinja2

    said = jinja2.Template(template).render(
        messages=[{"role": "user", "content": "hello"}], add_generation_prompt=True
    )
    assert said == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_the_most_common_chat_template_is_taken_for_auto(llms, tmp_path):
    for name, template in (("a", "{{ one }}"), ("b", "{{ two }}"), ("c", "{{ two }}")):
        directory = tmp_path / name
        directory.mkdir()
        for file in (llms / name).iterdir():
            shutil.copyfile(file, directory / file.name)
        (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "x": 1}))
    models = "\n".join(f"  - {{model: {tmp_path}/{name}, parameters: {{weight: 1}}}}" for name in "abc")
    (tmp_path / "m.yml").write_text(f"models:\n{models}\nmerge_method: linear\nchat_template: auto\n")
    fb("run", "-q", "--mergekit", str(tmp_path / "m.yml"), "-o", str(tmp_path / "out"))
    assert (tmp_path / "out/model/chat_template.jinja").read_text() == "{{ two }}"
    assert json.loads((tmp_path / "out/model/tokenizer_config.json").read_text()) == {"x": 1}


def test_an_interrupted_chain_goes_on_after_the_stages_that_are_finished(tmp_path):
    fb("run", "-q", "--mergekit", str(CONFIGS / "stages.yml"), "-o", str(tmp_path / "out"))
    first = (tmp_path / "out/stages/first/model/model.safetensors").stat().st_mtime_ns
    (tmp_path / "out/report.json").unlink()
    fb("run", "-q", "--resume", str(tmp_path / "out"))
    assert (tmp_path / "out/report.json").exists()
    assert (tmp_path / "out/stages/first/model/model.safetensors").stat().st_mtime_ns == first


def test_a_directory_that_holds_another_run_is_not_written_to(tmp_path):
    fb("run", "-q", "--mergekit", str(CONFIGS / "linear_equal.yml"), "-o", str(tmp_path / "out"))
    with pytest.raises(FusionError, match="exists and is not empty"):
        fb("run", "-q", "--mergekit", str(CONFIGS / "stages.yml"), "-o", str(tmp_path / "out"))


def test_the_plan_is_shown_without_reading_weights():
    shown = fb("plan", "--mergekit", str(CONFIGS / "frankenmerge.yml"))
    assert "48 merged" in shown


def test_overrides_change_what_was_converted(tmp_path):
    fb(
        *("run", "-q", "--mergekit", str(CONFIGS / "linear_equal.yml"), "engine.dtype=bfloat16"),
        *("-o", str(tmp_path / "out")),
    )
    config = yaml.safe_load((tmp_path / "out/config.yaml").read_text())
    assert config["engine"]["dtype"] == "bfloat16"

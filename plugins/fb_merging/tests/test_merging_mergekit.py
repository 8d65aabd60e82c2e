from __future__ import annotations

import pytest
from fb_merging.mergekit.convert import convert
from fb_merging.mergekit.methods import METHODS
from fb_merging.mergekit.templates import TEMPLATES

from fusionbench_core import ConfigError
from fusionbench_core.registry import default_registry

LINEAR = """merge_method: linear
models:
- {model: ./a, parameters: {weight: 1}}
- {model: ./b, parameters: {weight: 2}}
"""
TIES = "merge_method: ties\nbase_model: ./base\nmodels:\n- {model: ./a, parameters: {weight: 1}}\n"


def values(text: str) -> dict:
    return dict(convert(text).values)


def notes(text: str) -> str:
    return "\n".join(note for _, note in convert(text).notes)


def test_a_plain_merge_becomes_a_plain_config():
    assert values(LINEAR + "dtype: bfloat16\nout_dtype: float32\n") == {
        "method": {"name": "weighted_average", "weights": {"a": 1.0, "b": 2.0}, "normalize": True},
        "modelpool": {"models": {"a": "./a", "b": "./b"}},
        "engine": {"dtype": "float32"},
        "taskpool": None,
    }


def test_every_parameter_of_every_method_is_one_of_ours():
    for name, method in METHODS.items():
        cls = default_registry().load("method", method.ours)
        ours = {parameter.ours for parameter in method.parameters if parameter.ours} | set(method.always)
        special = (
            {"nuslerp_flatten", "nuslerp_row_wise", "normalize"}
            if name in ("nuslerp", "task_arithmetic")
            else set()
        )
        assert ours - special <= set(cls.model_fields), name


def test_references_keep_their_revision_and_become_adapters():
    text = """
merge_method: linear
parameters: {weight: 1}
models:
- model: org/model@main
- model: org/model+org/adapter@v2
- model: {model: {path: ./c, revision: null}, lora: {path: ./d}}
"""
    pool = values(text)["modelpool"]
    assert pool == {
        "source": "causal_lm",
        "models": {
            "model": "org/model@main",
            "adapter": {"source": "peft", "path": "org/adapter", "base": "org/model", "revision": "v2"},
            "d": {"source": "peft", "path": "./d", "base": "./c"},
        },
    }


def test_models_of_one_name_get_different_ones():
    text = "merge_method: linear\nparameters: {weight: 1}\nmodels:\n- {model: ./x/m.1}\n- {model: ./y/m.1}\n"
    assert values(text)["modelpool"]["models"] == {"m_1": "./x/m.1", "m_1_2": "./y/m.1"}


def test_the_base_is_no_input_of_methods_on_task_vectors():
    text = TIES + "- {model: ./base, parameters: {weight: 7}}\n"
    assert values(text)["modelpool"] == {"base": "./base", "models": {"a": "./a"}}


def test_the_base_is_an_input_where_mergekit_counts_it():
    text = LINEAR + "base_model: ./base\nparameters: {weight: 0.5}\n"
    found = values(text)
    assert found["modelpool"] == {"base": "./base", "models": {"a": "./a", "b": "./b", "base_2": "./base"}}
    assert found["method"]["weights"] == {"a": 1.0, "b": 2.0, "base_2": 0.5}


def test_settings_of_a_source_go_before_those_of_its_slice_and_of_the_whole():
    text = """
merge_method: ties
base_model: ./base
slices:
- sources:
  - {model: ./base, layer_range: [0, 2]}
  - {model: ./a, layer_range: [0, 2], parameters: {density: [{filter: mlp, value: 0.1}]}}
  - {model: ./b, layer_range: [0, 2]}
  parameters: {density: [{filter: attn, value: 0.2}]}
parameters: {density: 0.3, weight: 1}
"""
    density = values(text)["method"]["parameters"]["density"]
    assert density["a"] == [
        {"tensors": "*mlp*", "value": 0.1},
        {"tensors": "*attn*", "value": 0.2},
        {"value": 0.3},
    ]
    assert density["b"] == [{"tensors": "*attn*", "value": 0.2}, {"value": 0.3}]


def test_a_filter_is_a_part_of_a_name_whatever_letters_it_has():
    text = "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./a}, {model: ./b}]\n"
    text += "parameters: {t: [{filter: 'w[1]*', value: 0.1}, {filter: '*', value: 0.5}, {value: 0.9}]}\n"
    assert values(text)["method"]["parameters"]["t"] == [
        {"tensors": "*w[[]1][*]*", "value": 0.1},
        {"value": 0.5},
    ]


def test_scientific_numbers_that_yaml_reads_as_text_are_numbers():
    text = "merge_method: nearswap\nbase_model: ./a\nmodels: [{model: ./b}]\nparameters: {t: 1e-4}\n"
    assert values(text)["method"]["t"] == 1e-4


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_chat_templates_of_mergekit_are_jinja(name):
    import jinja2

    found = values(LINEAR + f"chat_template: {name}\n")["modelpool"]["chat_template"]
    said = jinja2.Template(found).render(
        messages=[{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}],
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    assert said.index("one") < said.index("two")


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("tokenizer_source: union", {"source": "union", "padding": "drop"}),
        ("tokenizer_source: base", {"source": "a", "padding": "drop"}),
        ("tokenizer_source: ./b", {"source": "b", "padding": "drop"}),
        (
            "tokenizer: {pad_to_multiple_of: 64}",
            {"source": "union", "padding": "drop", "pad_to_multiple_of": 64},
        ),
        (
            "tokenizer: {source: ./a, tokens: {x: {source: ./b, force: true}, y: {source: {kind: zero}}}}",
            {
                "source": "a",
                "padding": "drop",
                "tokens": {"x": {"source": "b", "force": True}, "y": {"source": "zero"}},
            },
        ),
        (
            "tokenizer: {tokens: {x: {source: {kind: model_token, model: ./b, token: z}}}}",
            {"source": "union", "padding": "drop", "tokens": {"x": {"source": "b", "token": "z"}}},
        ),
    ],
)
def test_tokenizer_settings_name_models_as_the_pool_does(said, wanted):
    assert values(f"{LINEAR}{said}\n")["modelpool"]["tokenizer"] == wanted


def test_the_tokenizer_of_the_base_is_that_of_the_pools_base():
    assert values(f"{TIES}tokenizer_source: base\n")["modelpool"]["tokenizer"]["source"] == "base"
    assert values(f"{TIES}tokenizer_source: ./base\n")["modelpool"]["tokenizer"]["source"] == "base"


def test_documents_are_put_in_the_order_in_which_they_need_each_other():
    text = f"""
merge_method: slerp
base_model: second
models: [{{model: second}}, {{model: first}}]
parameters: {{t: 0.5}}
---
name: second
{LINEAR.replace("./a", "first")}
---
name: first
{LINEAR}
"""
    found = values(text)
    assert list(found["stages"]) == ["first", "second"]
    assert found["stages"]["second"]["modelpool"]["models"]["first"] == "stage://first"
    assert found["modelpool"]["models"] == {"second": "stage://second", "first": "stage://first"}


def test_the_last_document_that_no_other_needs_is_the_result_where_all_have_names():
    text = f"name: first\n{LINEAR}---\nname: second\n{TIES.replace('./a', 'first')}"
    found = values(text)
    assert list(found["stages"]) == ["first"]
    assert found["method"]["name"] == "ties_merging"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINEAR + "parametrs: {weight: 1}\n", "did you mean 'parameters'"),
        (LINEAR.replace("weight: 2", "weigth: 2"), "did you mean 'weight'"),
        (LINEAR.replace("model: ./a", "modle: ./a"), "did you mean 'model'"),
        (LINEAR.replace("linear", "tyes"), "did you mean 'ties'"),
        (LINEAR.replace("linear", "ties"), "add base_model"),
        ("merge_method: linear\n", "exactly one of"),
        (LINEAR.replace("merge_method: linear\n", ""), "`merge_method` is missing"),
        (LINEAR.replace("weight: 2", "weight: heavy"), "no value of `weight`"),
        (LINEAR.replace(", parameters: {weight: 2}", ""), "`weight` is missing"),
        (LINEAR.replace("weight: 2", "weight: [{filter: mlp, value: 1}]"), "that no filter matches"),
        (LINEAR.replace("weight: 2", "weight: [{pattern: mlp, value: 1}]"), "take the value for all tensors"),
        (LINEAR + "dtype: int8\n", "no dtype to merge in"),
        (LINEAR + "chat_template: chatlm\n", "did you mean 'chatml'"),
        (LINEAR + "tokenizer_source: union\ntokenizer: {source: base}\n", "exclude each other"),
        (LINEAR.replace("./a", "./a+./b+./c"), "several adapters"),
        (LINEAR + "tokenizer_source: ./c\n", "no model of this merge"),
        (LINEAR + "tokenizer: {sorce: base}\n", "did you mean 'source'"),
        (LINEAR + "tokenizer: {tokens: {x: {source: {kind: model_token, token_id: 3}}}}\n", "by the id of"),
        ("- 1\n", "is a mapping"),
        ("{", "not valid YAML"),
        ("", "is empty"),
        (TIES + "parameters: {normalize: [true, false]}", "differs between tensors"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_remedy(text, said):
    with pytest.raises(ConfigError) as caught:
        convert(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("slices", "said"),
    [
        ("[{sources: [{model: ./a, layer_range: [4, 2]}]}]", "no range of layers"),
        ("[{sources: [{model: ./a}]}]", "`layer_range` is missing"),
        ("[{sources: []}]", "must be a list"),
        (
            "[{sources: [{model: ./a, layer_range: [0, 2]}, {model: ./b, layer_range: [0, 3]}]}]",
            "different numbers of layers",
        ),
    ],
)
def test_wrong_slices_are_refused(slices, said):
    with pytest.raises(ConfigError, match=said):
        convert(f"merge_method: linear\nslices: {slices}\nparameters: {{weight: 1}}\n")


def test_a_slice_without_layers_of_the_base_is_refused():
    text = "merge_method: ties\nbase_model: ./b\nslices: [{sources: [{model: ./a, layer_range: [0, 2]}]}]\n"
    with pytest.raises(ConfigError, match="lacks layers of the base model b"):
        convert(text + "parameters: {weight: 1}\n")


def test_documents_that_need_each_other_are_refused():
    one, two = LINEAR.replace("./a", "y"), LINEAR.replace("./a", "x")
    with pytest.raises(ConfigError, match="in a circle"):
        convert(f"name: x\n{one}---\nname: y\n{two}---\n{LINEAR.replace('./b', 'x')}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LINEAR + "zzz: 1\n", "zzz: mergekit has no such key"),
        (LINEAR.replace("weight: 2", "weight: 2, density: 1"), "linear has no such parameter"),
        (LINEAR.replace("weight: 2", "weight: 2, normalize: false"), "ignores it here"),
        (LINEAR + "dtype: float16\n", "computes in float16"),
    ],
)
def test_what_mergekit_ignores_without_a_word_is_said(text, said):
    assert said in notes(text)


def test_remarks_are_comments_of_the_section_they_speak_of():
    text = convert(LINEAR + "dtype: float16\n").to_yaml()
    lines = text.splitlines()
    assert lines[lines.index("engine:") - 1].startswith("# mergekit computes in float16")

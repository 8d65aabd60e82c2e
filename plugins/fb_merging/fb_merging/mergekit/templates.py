"""The chat templates that mergekit knows by name, in the formats that their authors document."""

from __future__ import annotations

_EACH = "{% for message in messages %}"
_END = "{% endfor %}"
_ASK = "{% if add_generation_prompt %}"
_FI = "{% endif %}"

TEMPLATES = {
    "chatml": (
        _EACH
        + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        + _END
        + _ASK
        + "{{ '<|im_start|>assistant\\n' }}"
        + _FI
    ),
    "alpaca": (
        _EACH
        + "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
        + "{% elif message['role'] == 'user' %}{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
        + "{% else %}{{ '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}{% endif %}"
        + _END
        + _ASK
        + "{{ '### Response:\\n' }}"
        + _FI
    ),
    "llama3": (
        "{{ bos_token }}"
        + _EACH
        + "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
        + " + message['content'] | trim + '<|eot_id|>' }}"
        + _END
        + _ASK
        + "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
        + _FI
    ),
    "mistral": (
        "{{ bos_token }}"
        + _EACH
        + "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
        + "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}"
        + _END
    ),
    "exaone": (
        _EACH
        + "{{ '[|' + message['role'] + '|]' + message['content']"
        + " + ('\\n' if message['role'] == 'user' else '[|endofturn|]\\n') }}"
        + _END
        + _ASK
        + "{{ '[|assistant|]' }}"
        + _FI
    ),
}
"""Name -> Jinja text for `apply_chat_template`."""

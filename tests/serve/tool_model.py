"""A model with a template that knows tools.

write_tool_model(source, path)
"""

from pathlib import Path

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter

TEMPLATE = """
{%- if tools %}<|im_start|>system
You may call these functions: <tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>
For each call return <tool_call>
{"name": <name>, "arguments": <arguments>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def write_tool_model(source: Path, path: Path, template: str = TEMPLATE) -> Path:
    """The model of `source` with another chat template."""
    with GGUFFile.open(source) as model, GGUFWriter(path) as out:
        out.copy_metadata(model.metadata)
        out.add("tokenizer.chat_template", template)
        for info in model.tensors.values():
            out.declare(info.name, info.shape, info.type)
        for name in model.tensors:
            out.write(name, model.tensor_bytes(name))
    return path

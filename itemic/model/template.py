"""Our ChatML template: for models from scratch and for models that come without a template of their own.

Contents are rendered as they are (no stripping, no think blocks put in or taken out), so what a conversation
says is what is trained and asked. The ``generation`` markers let other libraries mask the assistant's turns
as we do.
"""

from __future__ import annotations

from itemic.schema import THINK_END, THINK_START

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
EMPTY_THINK = f"{THINK_START}\n\n{THINK_END}\n\n"

SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
CHAT_TOKENS = (TURN_START, TURN_END, THINK_START, THINK_END)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.content is string -%}
        {%- set text = message.content -%}
    {%- else -%}
        {%- set text = message.content | map(attribute='text') | join -%}
    {%- endif -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}
            {{- text + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- text + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\\n\\n</think>\\n\\n' -}}
    {%- endif -%}
{%- endif -%}
"""

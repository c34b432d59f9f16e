"""How are chats written where a file does not say it? As ChatML, like llama-server (common/chat.cpp)."""

from typing import Final

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_STOP: Final = "<|im_end|>"

"""Conversations: everything that a model is trained on and asked, and the checks of it."""

from itemic.tasks.build import build_conversations
from itemic.tasks.conversation import Conversation, Conversations
from itemic.tasks.preview import preview
from itemic.tasks.table import TASKS, make_task, prompt_words, task_of, task_options
from itemic.tasks.task import Prompt, Task
from itemic.tasks.validate import validate
from itemic.tasks.written import write_rationales

__all__ = [
    "TASKS",
    "Conversation",
    "Conversations",
    "Prompt",
    "Task",
    "build_conversations",
    "make_task",
    "preview",
    "prompt_words",
    "task_of",
    "task_options",
    "validate",
    "write_rationales",
]
